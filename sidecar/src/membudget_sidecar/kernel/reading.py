"""A figure of the kernel, or its absence with the reason.

Covers the vocabulary of every reader here and the arithmetic that keeps absence absent: an unknown figure is
never 0, so nothing is ever done on it. Does not cover where figures come from: `kernel_file` reads them,
`process` and `cgroup` give them names.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Absent:
    """No figure, and why, in words for a person: the reason names the file and what was wrong with it."""

    reason: str


Reading: TypeAlias = int | Absent
"""A whole figure: bytes, a count, or milliseconds, as its field says."""

Fraction: TypeAlias = float | Absent
"""A figure with a fraction: a percentage, an average, a share of 0 to 1."""


@dataclass(frozen=True, slots=True)
class SignalReading:
    """The signal in bytes, and the files and names it was made of, for people who check it."""

    bytes: Reading
    source: str


def total(*readings: Reading) -> Reading:
    """The sum of the readings, in their unit; absent with the first reason when one of them is absent."""
    amount = 0
    for reading in readings:
        if isinstance(reading, Absent):
            return reading
        amount += reading
    return amount


def remainder(whole: Reading, part: Reading) -> Reading:
    """`whole - part`, not under 0; absent when one of them is absent.

    The kernel updates its counters one by one, so a part can exceed its whole for a moment; hence the floor.
    """
    if isinstance(whole, Absent):
        return whole
    if isinstance(part, Absent):
        return part
    return max(0, whole - part)
