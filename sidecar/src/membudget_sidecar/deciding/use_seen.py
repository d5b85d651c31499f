"""What an engine was seen to use since it started, for a recommendation.

Covers: unmanaged bytes and those of each component, weighted by time, in some 5 kB a subject whatever the number of
looks. Pure. Does not recommend (`membudget_contract.recommend`) nor keep single samples (`history`). For one thread;
others call `seen`, which copies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

from membudget_contract.control_api import ComponentReport
from membudget_contract.recommend import ComponentSeen, SeenUse, Use

STEP: Final = 1.05
"""A percentile is the upper bound of its bucket: up to 5 % too high."""
LEAST_BYTES: Final = 4096
LONGEST_SECONDS: Final = 30.0
"""Between two looks; in more than that nobody looked, and nothing is known of it."""
MOST_COMPONENTS: Final = 100
"""Names come from the engine."""

_MEDIAN: Final = 0.5
_HIGH: Final = 0.99


class Spread:
    """How long a figure was how large."""

    def __init__(self) -> None:
        self._peak = 0
        self._seconds: dict[int, float] = {}

    def record(self, amount: int, seconds: float) -> None:
        """It was `amount` bytes for so many seconds."""
        self._peak = max(self._peak, amount)
        bucket = 0 if amount <= LEAST_BYTES else math.ceil(math.log(amount / LEAST_BYTES, STEP))
        self._seconds[bucket] = self._seconds.get(bucket, 0.0) + seconds

    def use(self) -> Use:
        """The figures of now."""
        return Use(median_bytes=self._below(_MEDIAN), high_bytes=self._below(_HIGH), peak_bytes=self._peak)

    def _below(self, share: float) -> int:
        """Bytes that were not exceeded in that share of the time."""
        buckets = sorted(self._seconds.items())
        sums = list(itertools.accumulate(seconds for _, seconds in buckets))
        for (bucket, _), so_far in zip(buckets, sums, strict=True):
            if so_far >= share * sums[-1]:
                return min(self._peak, math.ceil(LEAST_BYTES * STEP**bucket))
        return self._peak


class UseSeen:
    """Follows one engine; `forget` when there is another."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Another engine: its use is its own."""
        self._looked_at: float | None = None
        self._seconds = 0.0
        self._looks = 0
        self._unmanaged: Spread | None = None
        self._components: dict[str, tuple[Spread, Spread]] = {}
        """Owned and mapped bytes by name."""

    def look(self, now: float, unmanaged: int | None, components: Sequence[ComponentReport] | None) -> None:
        """One full look, at `now` in monotonic seconds; without a report, None, nothing is known of it.

        A process without a runtime has no components, and all its bytes are unmanaged.
        """
        before, self._looked_at = self._looked_at, now
        if components is None or unmanaged is None:
            self._looked_at = None
            return
        seconds = 0.0 if before is None else min(LONGEST_SECONDS, max(0.0, now - before))
        self._seconds += seconds
        self._looks += 1
        self._unmanaged = self._unmanaged or Spread()
        self._unmanaged.record(unmanaged, seconds)
        for part in components[:MOST_COMPONENTS]:
            if part.name in self._components or len(self._components) < MOST_COMPONENTS:
                owned, mapped = self._components.setdefault(part.name, (Spread(), Spread()))
                owned.record(part.owned_bytes, seconds)
                mapped.record(part.mapped_bytes or 0, seconds)

    def seen(self, reported: Sequence[ComponentReport], ceilings: dict[str, int]) -> SeenUse:
        """Everything until now; of the components those of the newest report, with its evictions and Critical bytes."""
        parts = {part.name: part for part in reported}
        components = {
            name: ComponentSeen(
                owned=owned.use(),
                mapped=mapped.use(),
                ceiling_bytes=ceilings.get(name),
                evictions=parts[name].evictions,
                critical_bytes=parts[name].critical_bytes,
            )
            for name, (owned, mapped) in list(self._components.items())
            if name in parts
        }
        return SeenUse(
            seconds=self._seconds,
            looks=self._looks,
            unmanaged=self._unmanaged.use() if self._unmanaged else None,
            components=components,
        )
