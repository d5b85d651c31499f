"""Courses of memory in simulated time, looked at as the sidecar's loop looks, and a plain line through them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from membudget_contract.quantities import MIB

Trace: TypeAlias = Callable[[float], float]
"""MiB after so many seconds."""

SETTLED = 300.0
"""By then every start below is over; what is to be found begins here."""

FAR = 10.0
NEAR_FULL = 1.0
NEAR = 0.1
"""Seconds between looks: with room, a full look near a threshold, a quick one."""


def leak(mib_per_second: float, begins: float = SETTLED) -> Trace:
    """Nothing until it has settled, then so many MiB per second."""
    return lambda second: 100 + max(0.0, second - begins) * mib_per_second


def plateau() -> Trace:
    """An engine at rest."""
    return lambda _: 100.0


def ramp(mib: float, seconds: float) -> Trace:
    """A start that loads evenly and is done."""
    return lambda second: 50 + mib * min(1.0, second / seconds)


def flattening_ramp(mib: float, seconds: float) -> Trace:
    """A start whose pace falls to 1/e in so many seconds."""
    return lambda second: 50 + mib * (1 - math.exp(-second / seconds))


def step(mib: float) -> Trace:
    """One allocation after it has settled."""
    return lambda second: 100 + (mib if second > SETTLED else 0)


def load(mib: float, seconds: float) -> Trace:
    """So much more within so many seconds, after it has settled."""
    return lambda second: 100 + mib * min(1.0, max(0.0, second - SETTLED) / seconds)


def saw_tooth(mib: float, seconds: float) -> Trace:
    """Garbage that grows for 95 % of a period and is collected in the rest."""

    def at(second: float) -> float:
        phase = second % seconds / seconds
        return 100 + mib * (phase / 0.95 if phase < 0.95 else (1 - phase) / 0.05)

    return at


def daily_wave(mib: float) -> Trace:
    """Load by day and by night."""
    return lambda second: 200 + mib / 2 * math.sin(2 * math.pi * (second / 86_400 - 0.25))


def together(*traces: Trace) -> Trace:
    """Their sum."""
    return lambda second: sum(trace(second) for trace in traces)


def looks(trace: Trace, seconds: float, pace: float, seed: int, noise_mib: float = 0.5) -> Iterator[tuple[float, int]]:
    """(now, bytes): each pause up to 5 % over the pace, as the loop's are; Gaussian noise on the bytes."""
    dice = random.Random(seed)
    now = dice.random() * pace
    while now < seconds:
        yield now, max(0, int((trace(now) + dice.gauss(0, noise_mib)) * MIB))
        now += pace * dice.uniform(1, 1.05)


class PlainLine:
    """A least-squares line through the last minute: what people write first."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._points: list[tuple[float, int]] = []

    def record(self, now: float, figure: int) -> None:
        """A sample; those older than the window leave."""
        self._points.append((now, figure))
        while self._points[0][0] < now - self._seconds:
            del self._points[0]

    def bytes_per_second(self) -> float:
        """The slope; 0 while there is none."""
        return slope(self._points)

    def grown_bytes(self) -> float:
        """What the line rises within its window."""
        return self.bytes_per_second() * (self._points[-1][0] - self._points[0][0])

    def seconds_to(self, limit: int) -> float:
        """Until the line crosses the limit; infinite while it falls."""
        rate = self.bytes_per_second()
        return (limit - self._points[-1][1]) / rate if rate > 0 else math.inf


def slope(points: Sequence[tuple[float, int]]) -> float:
    """By least squares, in bytes per second."""
    mean_time = _mean(time for time, _ in points)
    mean_bytes = _mean(figure for _, figure in points)
    spread = sum((time - mean_time) ** 2 for time, _ in points)
    return sum((time - mean_time) * (figure - mean_bytes) for time, figure in points) / spread if spread else 0.0


def _mean(figures: Iterable[float]) -> float:
    listed = list(figures)
    return sum(listed) / len(listed)
