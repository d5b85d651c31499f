"""How figures are written for people.

Covers: bytes, shares, times, JSON. Does not cover tables (`status`, `demo`).
"""

from __future__ import annotations

import msgspec

from membudget_contract.quantities import MIB


def mebibytes(amount: int | None) -> str:
    """`117.3 MiB`; a dash where nothing is known."""
    return "-" if amount is None else f"{amount / MIB:.1f} MiB"


def milliseconds(seconds: float | None) -> str:
    """`3.4 ms`; a dash where nothing is known."""
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def whole_seconds(seconds: float | None) -> str:
    """`42 s`; a dash where nothing is known."""
    return "-" if seconds is None else f"{seconds:.0f} s"


def as_json(value: object) -> str:
    """For programs: two spaces, and a line's end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def percent(part: int | None, whole: int) -> str:
    """`78 %` of a whole; a dash where nothing is known."""
    return "-" if part is None or not whole else f"{100 * part / whole:.0f} %"


def quantile(ordered: list[float], share: float) -> float | None:
    """The value below which `share` of the ordered values lie; None without values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
