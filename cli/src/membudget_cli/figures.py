"""How figures are written for people.

Covers: bytes, shares, times, JSON and YAML. Does not cover tables (`status`, `demo`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from membudget_contract.quantities import MIB

OUTPUTS: Final = ("table", "json", "yaml")
"""What `-o` takes; the first is for people and the default."""


def mebibytes(amount: int | None) -> str:
    """`117.3 MiB`; a dash where nothing is known."""
    return "-" if amount is None else f"{round(amount / MIB, 1) + 0.0:.1f} MiB"  # never -0.0


def milliseconds(seconds: float | None) -> str:
    """`3.4 ms`; a dash where nothing is known."""
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def whole_seconds(seconds: float | None) -> str:
    """`42 s`; a dash where nothing is known."""
    return "-" if seconds is None else f"{seconds:.0f} s"


def document(value: object, output: str) -> str:
    """For programs, as JSON or YAML, with a line's end."""
    if output == "yaml":
        import yaml

        return yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True)
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def percent(part: int | None, whole: int) -> str:
    """`78 %` of a whole; a dash where nothing is known."""
    return "-" if part is None or not whole else f"{100 * part / whole:.0f} %"


def quantile(ordered: list[float], share: float) -> float | None:
    """The value below which `share` of the ordered values lie; None without values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
