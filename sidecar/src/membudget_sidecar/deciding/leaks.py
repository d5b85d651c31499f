"""Who seems to leak, seen from outside (R-S08).

Covers: bytes that nobody manages, and what a component owns beyond its budget. Does not cover what counts as growth
(`growth`), objects within the process (the runtime's business) nor telling people (alerts). Pure; for one thread,
others read `suspects`, which is replaced as a whole.

Never a leak: what a component owns within its budget, the start of an engine, a saw-tooth, a step, growth that
flattens. A first tooth cannot be told from a leak while it rises: one of more than 30 MiB in more than 45 s is
suspected until it falls, and known from then on. Growth from the first second on is taken for a start until 120 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from membudget_contract.quantities import MIB
from membudget_sidecar.deciding.growth import WINDOWS, Course, Growth
from membudget_sidecar.kernel.reading import Absent

UNMANAGED: Final = "unmanaged"
SUSTAINED_SECONDS: Final = 45.0
"""Shorter growth is a bulk load: about the longest patience that finds 1 MiB/s within 60 s by samples 10 s apart."""
SUSTAINED_GROWTHS: Final = 3
"""Times `growth_bytes` that nobody manages, before growth is called sustained: the heap's own swings stay below, and
0.01 MiB/s gets there in 50 minutes."""

_SUSTAINED_WINDOWS: Final = tuple(window for window in reversed(WINDOWS) if window >= SUSTAINED_SECONDS)
_FLATTENING: Final = 0.7
"""The second half of a window over the first: a constant rate under noise stays above."""
_OF_A_TOOTH: Final = 0.25
"""What a trough may lie off by, of the tooth: looks 10 s apart see a saw-tooth of 20 s at two places each."""
_TOLERANCE: Final = 0.9
"""A rate right at the bound is measured under it half of the time."""


@dataclass(frozen=True, slots=True)
class LeakRule:
    """What makes a suspect; the defaults are those of R-S08."""

    growth_bytes: int = 10 * MIB
    """Steady growth of a component beyond its budget."""
    bytes_per_second: int = 10_486
    """Sustained growth of what nobody manages: 0.01 MiB/s."""
    likely_bytes_per_hour: int = 10 * MIB


class Holding(NamedTuple):
    """What a component owns, and its budget; None: it has none, or it is not known, and nothing is said of it."""

    owned_bytes: int
    budget_bytes: int | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """Steady growth of one subject, jumps left out; `since` in seconds of the monotonic clock."""

    subject: str
    grown_bytes: int
    since: float
    bytes_per_hour: int
    likely: bool
    confidence: float
    """0 to 1, a share and no probability: how even the growth was, and half until it is twice what the rule asks."""
    reason: str


class Leaks:
    """Some 300 points for what nobody manages and for each component that is reported."""

    def __init__(self, rule: LeakRule) -> None:
        self.suspects: tuple[Suspect, ...] = ()
        self.rule = rule
        """What makes a suspect from the next look on; what was seen so far stays."""
        self._unmanaged = Course()
        self._components: dict[str, Course] = {}

    def forget(self) -> None:
        """Another engine: its growth is its own."""
        self.suspects = ()
        self._unmanaged, self._components = Course(), {}

    def look(self, now: float, unmanaged: int | Absent | None, components: Mapping[str, Holding] | None) -> None:
        """One sample, bytes at `now` in seconds of the monotonic clock; None or absent is a gap.

        A component that is no longer in `components` is forgotten; None is no report, and forgets nobody.
        """
        if isinstance(unmanaged, int):
            self._unmanaged.record(now, unmanaged)
        if components is not None:
            self._components = {name: self._components.get(name) or Course() for name in components}
            for name, holding in components.items():
                if holding.budget_bytes is not None:
                    self._components[name].record(now, max(0, holding.owned_bytes - holding.budget_bytes))
        found = [self._unmanaged_suspect(), *map(self._component_suspect, self._components)]
        self.suspects = tuple(suspect for suspect in found if suspect is not None)

    def _unmanaged_suspect(self) -> Suspect | None:
        least = SUSTAINED_GROWTHS * self.rule.growth_bytes
        growth = _sustained(self._unmanaged, least)
        if growth is None or growth.bytes_per_second < _TOLERANCE * self.rule.bytes_per_second:
            return None
        return self._suspect(UNMANAGED, growth, least, "what nobody manages")

    def _component_suspect(self, name: str) -> Suspect | None:
        least = self.rule.growth_bytes
        growth = _sustained(self._components[name], least)
        return None if growth is None else self._suspect(name, growth, least, f"{name}, beyond its budget,")

    def _suspect(self, subject: str, growth: Growth, least: int, who: str) -> Suspect:
        per_hour = growth.bytes_per_second * 3600
        return Suspect(
            subject=subject,
            grown_bytes=round(growth.grown_bytes),
            since=growth.since,
            bytes_per_hour=round(per_hour),
            likely=per_hour > self.rule.likely_bytes_per_hour,
            confidence=growth.evenness * min(1.0, growth.grown_bytes / (2 * least)),
            reason=f"{who} grew steadily by {growth.grown_bytes / MIB:.1f} MiB in {growth.seconds:.0f} s"
            f" and gave none of it back: {per_hour / MIB:.1f} MiB an hour",
        )


def _sustained(course: Course, least: int) -> Growth | None:
    """The longest steady growth of at least so many bytes that neither belongs to the start nor flattens.

    Over twice the time a flattening shows that a window alone cannot tell from noise.
    """
    least_here = least + _OF_A_TOOTH * course.tooth_bytes()
    for window in _SUSTAINED_WINDOWS:
        growth = course.growth(window)
        if growth is None or growth.grown_bytes < least_here or growth.slowing < _FLATTENING:
            continue
        if course.started_at is None or growth.since < course.started_at:
            continue
        longer = course.growth(2 * window)
        if longer is None or longer.slowing >= _FLATTENING:
            return growth
    return None
