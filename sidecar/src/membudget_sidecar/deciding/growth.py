"""What one figure has gained and never given back, and where that gain was steady.

Covers: the held curve of irregular samples, known swings, the start of an engine, steady growth over a window. Does
not cover when a limit is reached (`trend`) nor who is to blame (`leaks`). Pure: times are arguments, in seconds of one
monotonic clock.

The held curve is the minimum from each moment on: a saw-tooth falls out of it with each fall, a step or whatever
happened in a gap without samples is one jump in it, garbage over a slow leak leaves its troughs. A rise counts at
the sample that showed it, nothing is interpolated. Growth is steady where each quarter of a window rose; its rate is
the median of the quarters, so one jump among them does not weigh (the repeated medians of Theil and Sen, over four
slopes instead of all pairs).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from membudget_contract.quantities import MIB

WINDOWS: Final = tuple(0.75 * 2 ** (step / 2) for step in range(29))
"""Seconds looked back, each the next but one doubled: from 0.75 s, seven of the quickest samples, to 3.4 hours."""
NOISE_BYTES: Final = 4 * MIB
"""Rises and falls below are no movement: the kernel's counters lag up to 64 pages per processor behind, and an
allocator takes and returns some MiB under even load."""
START_UP_SECONDS: Final = 120.0
"""The longest that the start of an engine excuses growth; a service that loads models is up by then."""
PAUSE_SECONDS: Final = 20.0
"""Without a new high an engine has started: two of the slowest samples of the default interval."""

_QUARTERS: Final = 4
_STEADY: Final = 1 / 3
"""The slowest quarter over the median one, at least: growth by uneven requests passes, a pause does not."""
_RESOLUTION: Final = 32
"""Points stand no closer than their age over this: a window's end is off by 3 % of it, 400 points last for hours."""
_THIN_EVERY: Final = 64
_PAUSE_BYTES: Final = 2 * MIB
_TEETH_KEPT: Final = 8
_SMALL_TOOTH: Final = 1 / 3
"""Of the largest one: what falls by less is noise upon the teeth."""
_HIGHER_TOOTH: Final = 0.25
_LONGER_TOOTH: Final = 1.5
_STEEPER_TOOTH: Final = 2.0
"""A tooth may rise a quarter higher than those before, half as long again, twice as steep; what goes beyond is none."""
_TEETH_MISSED: Final = 4
"""Times the longest time between two falls: when none came for so long, the saw-tooth is over."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Steady growth from `since` to `until`, jumps left out."""

    since: float
    until: float
    bytes_per_second: float
    evenness: float
    """The slowest quarter over the median one: 1/3 to 1."""
    slowing: float
    """The rate of the second half over that of the first: under 1 the growth flattens."""

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.until - self.since

    @property
    def grown_bytes(self) -> float:
        """What the rate makes of the time."""
        return self.bytes_per_second * self.seconds


class _Tooth(NamedTuple):
    """A rise that ended in a fall."""

    peak_bytes: int
    risen_bytes: int
    seconds: float
    since_last_fall: float


class Course:
    """One figure's held curve, swings and start; about 300 points whatever the number of samples. For one thread."""

    def __init__(self) -> None:
        self.forget()

    @property
    def started_at(self) -> float | None:
        """When growth ceased to belong to the start: at its first pause, after 120 s at most. None: it still does."""
        return self._start_up.ended_at

    def forget(self) -> None:
        """Another process, or another clock."""
        self._times: list[float] = []
        self._held: list[int] = []
        self._thin_at = _THIN_EVERY
        self._now = -math.inf
        self._start_up = _StartUp()
        self._swings = _Swings()

    def record(self, now: float, figure: int) -> None:
        """A sample in bytes. One that is older than the last is of another clock, and everything begins anew."""
        if now < self._now:
            self.forget()
        elif now == self._now:
            return
        self._now = now
        self._start_up.record(now, figure)
        self._swings.record(now, figure)
        times, held = self._times, self._held
        while held and held[-1] >= figure:
            held.pop()
            times.pop()
        times.append(now)
        held.append(figure)
        if len(times) >= self._thin_at:
            self._thin(now)

    def tooth_peak(self) -> int | None:
        """The highest known tooth in bytes while the figure is within one; None while it is not."""
        return self._swings.peak() if self._swings.within_tooth() else None

    def tooth_bytes(self) -> int:
        """What the largest known tooth rises, in bytes, while the figure is within one; 0 while it is not."""
        return self._swings.largest() if self._swings.within_tooth() else 0

    def growth(self, seconds: float) -> Growth | None:
        """Steady growth over a window that ends now, or, within a known tooth, where the tooth began; else None."""
        times, held = self._times, self._held
        until = self._swings.low_at if self._swings.within_tooth() else self._now
        since = until - seconds
        if not times or since < times[0]:
            return None
        slopes: list[float] = []
        before = bisect_right(times, since) - 1
        for quarter in range(1, _QUARTERS + 1):
            after = bisect_right(times, since + seconds * quarter / _QUARTERS) - 1
            if after == before or held[after] == held[before]:
                return None
            slopes.append((held[after] - held[before]) / (times[after] - times[before]))
            before = after
        slowest, low, high, _ = sorted(slopes)
        rate = (low + high) / 2
        if slowest < _STEADY * rate:
            return None
        slowing = (slopes[2] + slopes[3]) / (slopes[0] + slopes[1])
        return Growth(since, until, rate, slowest / rate, slowing)

    def _thin(self, now: float) -> None:
        """Leave out points that stand close for their age, and those too old for any window."""
        times, held = self._times, self._held
        first = max(0, bisect_right(times, now - WINDOWS[-1]) - 1)
        kept_times, kept_held = [times[first]], [held[first]]
        for place in range(first + 1, len(times) - 1):
            if times[place + 1] - kept_times[-1] >= (now - times[place]) / _RESOLUTION:
                kept_times.append(times[place])
                kept_held.append(held[place])
        self._times, self._held = [*kept_times, times[-1]], [*kept_held, held[-1]]
        self._thin_at = len(self._times) + _THIN_EVERY


class _StartUp:
    """From the first sample to the first pause in new highs."""

    def __init__(self) -> None:
        self.ended_at: float | None = None
        self._began: float | None = None
        self._high = 0
        self._high_at = 0.0

    def record(self, now: float, figure: int) -> None:
        if self.ended_at is not None:
            return
        if self._began is None:
            self._began, self._high, self._high_at = now, figure, now
        if figure > self._high + _PAUSE_BYTES:
            self._high, self._high_at = figure, now
        if now - self._began >= START_UP_SECONDS or now - self._high_at >= PAUSE_SECONDS:
            self.ended_at = now


class _Swings:
    """The teeth seen last, and whether the figure is within another."""

    def __init__(self) -> None:
        self.low_at = 0.0
        """When the figure was last down, within noise."""
        self._teeth: deque[_Tooth] = deque(maxlen=_TEETH_KEPT)
        self._noise: float = NOISE_BYTES
        self._within = False
        self._low: int | None = None
        self._peak = 0
        self._peak_at = 0.0
        self._fell_at = 0.0
        self._rising = False

    def peak(self) -> int:
        """The highest of the teeth."""
        return max(tooth.peak_bytes for tooth in self._teeth)

    def largest(self) -> int:
        """The most that one of the teeth rises."""
        return max(tooth.risen_bytes for tooth in self._teeth)

    def within_tooth(self) -> bool:
        """Whether what rose since the last low looks like the teeth before."""
        return self._within

    def record(self, now: float, figure: int) -> None:
        if self._low is None:
            self._low, self.low_at, self._fell_at = figure, now, now
        if not self._rising:
            self._low = min(self._low, figure)
            if figure < self._low + NOISE_BYTES:
                self.low_at = now
            if figure >= self._low + self._noise:
                self._peak, self._peak_at, self._rising = figure, now, True
        elif figure >= self._peak:
            self._peak, self._peak_at = figure, now
        elif figure <= self._peak - self._noise:
            self._fall(now, self._low)
            self._low, self.low_at, self._rising = figure, now, False
        if self._teeth and now - self._fell_at > _TEETH_MISSED * max(tooth.since_last_fall for tooth in self._teeth):
            self._teeth.clear()
            self._noise = NOISE_BYTES
        self._within = any(self._is_like(tooth, now, figure) for tooth in self._teeth)

    def _fall(self, now: float, low: int) -> None:
        tooth = _Tooth(self._peak, self._peak - low, self._peak_at - self.low_at, now - self._fell_at)
        self._teeth.append(tooth)
        self._fell_at = now
        self._noise = max(NOISE_BYTES, _SMALL_TOOTH * self.largest())

    def _is_like(self, tooth: _Tooth, now: float, figure: int) -> bool:
        seconds, risen = now - self.low_at, figure - (self._low or 0)
        return (
            figure <= tooth.peak_bytes + _HIGHER_TOOTH * tooth.risen_bytes
            and seconds <= _LONGER_TOOTH * tooth.seconds
            and risen <= self._noise + _STEEPER_TOOTH * seconds * tooth.risen_bytes / tooth.seconds
        )
