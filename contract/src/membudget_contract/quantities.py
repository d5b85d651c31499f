"""Amounts of memory as people write them: Kubernetes quantities and percents.

Covers: `150Mi`, `1.5Gi`, `150M`, `2e8` and `75%`. Does not cover negative amounts or fractions of a byte
(rounded up, as the API server does for memory). Neighbours: `policy` holds amounts, `resolve` makes bytes.

Grammar: Kubernetes `resource.Quantity` (binarySI, decimalSI, decimalExponent).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

from membudget_contract.errors import QuantityInvalid

MAX_BYTES: Final = 2**63 - 1
"""The largest amount the API server accepts."""

KIB: Final = 1024
MIB: Final = 1024 * KIB

_BINARY = {suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL = {"m": Decimal("0.001"), "": Decimal(1)} | {
    suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)
}
QUANTITY_PATTERN: Final = (
    r"(?P<number>[0-9]{1,19}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
    r"(?P<suffix>[KMGTPE]i|[mkMGTPE]|[eE][+-]?[0-9]{1,2})?"
)
"""A quantity, in words that Python and the API server's RE2 read alike; narrower than Kubernetes has it."""
_QUANTITY = re.compile(QUANTITY_PATTERN)
_PERCENT = re.compile(r"(?P<number>[0-9]{1,3})%")


def parse_quantity(text: str) -> int:
    """Bytes of a quantity such as `150Mi`, rounded up to a whole byte.

    Raises:
        QuantityInvalid: the text is no quantity, or more than 2^63 - 1 bytes.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise QuantityInvalid(f"{_shown(text)} is no quantity; write bytes like 150Mi, 1.5Gi or 150M")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _BINARY:
        exact = number * _BINARY[suffix]
    elif suffix in _DECIMAL:
        exact = number * _DECIMAL[suffix]
    else:
        exact = number.scaleb(int(suffix[1:]))
    whole = exact.to_integral_value(rounding=ROUND_CEILING)
    if whole > MAX_BYTES:
        raise QuantityInvalid(f"{_shown(text)} is more than 2^63 - 1 bytes")
    return int(whole)


def format_bytes(amount: int) -> str:
    """The shortest quantity of exactly this many bytes: `157286400` is `150Mi`, `1000` stays `1000`."""
    for suffix, factor in reversed(_BINARY.items()):
        if amount and amount % factor == 0:
            return f"{amount // factor}{suffix}"
    return str(amount)


class Amount:
    """Bytes or a percent of something; exactly one of `byte_count` and `percent` is set.

    Immutable by convention and comparable by value; `str()` gives the text back as it was written.
    """

    __slots__ = ("byte_count", "percent", "text")

    def __init__(self, text: str) -> None:
        """Read `150Mi` or `75%`; raises QuantityInvalid."""
        self.text = text
        self.byte_count: int | None = None
        self.percent: int | None = None
        match = _PERCENT.fullmatch(text)
        if match is None:
            self.byte_count = parse_quantity(text)
            return
        self.percent = int(match["number"])
        if not 1 <= self.percent <= 100:  # noqa: PLR2004
            raise QuantityInvalid(f"{_shown(text)} must lie between 1% and 100%")

    def of(self, whole: int) -> int:
        """Bytes: the amount itself, or the percent of `whole` bytes, rounded down."""
        if self.byte_count is not None:
            return self.byte_count
        assert self.percent is not None
        return whole * self.percent // 100

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Amount) and (self.byte_count, self.percent) == (
            other.byte_count,
            other.percent,
        )

    def __hash__(self) -> int:
        return hash((self.byte_count, self.percent))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Amount({self.text!r})"


def _shown(text: str) -> str:
    """The text for a message; long input is cut so that an error never carries a megabyte."""
    return repr(text if len(text) <= 40 else text[:40] + "...")  # noqa: PLR2004
