"""How long requests of the service take, over the last seconds: where an action's harm shows first.

Covers: counting a duration in about a microsecond, and the quantiles of the last RECENT_SECONDS. Does not cover
metrics for people (the service's own histogram) nor what counts as harm (the sidecar).

A second is a slot of counters by length, sixteen to each doubling: a quantile is told at most 1/16 too long, never
too short, up to the 268 s that the last counter stands for. Eleven slots of 400 counters are 35 kB.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Final

from membudget_contract.control_api import RECENT_SECONDS, RequestReport

STEPS: Final = 16
"""Counters to each doubling of the time."""
EXACT: Final = 2 * STEPS
"""Below so many microseconds each has its own counter."""
COUNTERS: Final = EXACT + 23 * STEPS
SLOTS: Final = RECENT_SECONDS + 1
"""The running second is one more."""

_STEP_BITS: Final = STEPS.bit_length() - 1
_EMPTY: Final = bytes(array("L").itemsize * COUNTERS)


class RequestTimes:
    """Durations by second. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._slots = [array("L", _EMPTY) for _ in range(SLOTS)]
        self._seconds = [-1] * SLOTS

    def observe(self, seconds: float) -> None:
        """One request took so long."""
        place = _counter(int(seconds * 1e6))
        with self._lock:
            now = int(self._clock())
            number = now % SLOTS
            if self._seconds[number] != now:
                self._seconds[number] = now
                self._slots[number] = array("L", _EMPTY)
            self._slots[number][place] += 1
            self._count += 1

    def report(self) -> RequestReport | None:
        """Quantiles of the last RECENT_SECONDS; None when no request ended in them."""
        with self._lock:
            oldest = int(self._clock()) - RECENT_SECONDS
            recent = [slot for slot, second in zip(self._slots, self._seconds, strict=True) if second >= max(0, oldest)]
            counts = [sum(column) for column in zip(*recent, strict=True)]
            total = self._count
        if not sum(counts):
            return None
        return RequestReport(
            count=total, p50_microseconds=_quantile(counts, 0.5), p99_microseconds=_quantile(counts, 0.99)
        )


def _counter(microseconds: int) -> int:
    if microseconds < EXACT:
        return max(0, microseconds)
    doublings = microseconds.bit_length() - _STEP_BITS - 1
    return min((doublings << _STEP_BITS) + (microseconds >> doublings), COUNTERS - 1)


def _longest(counter: int) -> int:
    """The longest time that this counter stands for."""
    if counter < EXACT:
        return counter
    doublings = (counter >> _STEP_BITS) - 1
    return ((counter - (doublings << _STEP_BITS) + 1) << doublings) - 1


def _quantile(counts: Sequence[int], share: float) -> int:
    wanted = share * sum(counts)
    for counter, count in enumerate(counts):
        wanted -= count
        if wanted <= 0:
            return _longest(counter)
    return _longest(COUNTERS - 1)
