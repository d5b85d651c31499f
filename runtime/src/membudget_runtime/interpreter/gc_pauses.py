"""How long the interpreter stood still for garbage collection.

Covers: one figure for each collection since `listen`, and count, mean, p99, maximum and total of them. Does not cover
when it collects (`gc_tuner`).

A collection never runs inside another one, in no thread: what the callback writes needs no lock, and must take none,
because it may run while the same thread holds any. It costs 0.5 us for each collection.
"""

from __future__ import annotations

import gc
import math
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Final

from membudget_contract.control_api import GcPauses

RECENT: Final = 1000
"""Pauses that the p99 is of: 8 kB."""
LAST: Final = 10
"""Listed one by one."""


class PauseClock:
    """Times collections from `listen` to `close`; what it counted stays readable."""

    def __init__(self, nanoseconds: Callable[[], int] = time.perf_counter_ns) -> None:
        self._nanoseconds = nanoseconds
        self._recent = array("Q", bytes(RECENT * array("Q").itemsize))
        self._count = self._total = self._longest = 0
        self._began: int | None = None

    def listen(self) -> None:
        """From the next collection on."""
        gc.callbacks.append(self.on_collection)

    def close(self) -> None:
        """Listen no more; a second time does nothing."""
        if self.on_collection in gc.callbacks:
            gc.callbacks.remove(self.on_collection)

    def figures(self) -> GcPauses:
        """All of them, from one moment on; in whole microseconds."""
        count, recent = self._count, self._recent[:]
        known = sorted(recent[: min(count, RECENT)])
        return GcPauses(
            count=count,
            total_microseconds=self._total // 1000,
            mean_microseconds=self._total // count // 1000 if count else 0,
            p99_microseconds=known[math.ceil(0.99 * len(known)) - 1] // 1000 if known else 0,
            max_microseconds=self._longest // 1000,
            last_microseconds=tuple(recent[number % RECENT] // 1000 for number in range(max(0, count - LAST), count)),
        )

    def on_collection(self, phase: str, _info: Mapping[str, int]) -> None:
        """As `gc.callbacks` calls it, before and after each collection."""
        now = self._nanoseconds()
        if phase == "start":
            self._began = now
        elif self._began is not None:  # else it had begun before this one listened
            took = now - self._began
            self._recent[self._count % RECENT] = took
            self._total += took
            self._longest = max(self._longest, took)
            self._count += 1
            self._began = None
