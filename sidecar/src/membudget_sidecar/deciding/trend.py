"""When a limit is reached if growth goes on as it did (R-S13).

Covers: rate, time to a limit, and how far that may be trusted. Does not cover what counts as growth (`growth`), what
is a leak (`leaks`) nor what follows from a forecast (`ladder`). Pure, for one thread.

Windows from 0.75 s to hours are looked at together: a burst shows in the short ones within a second, a slow leak only
in the long ones. The longest steady one says it best, also that growth flattens; a shorter one is believed against it
if it is confident and halves the time. A forecast reaches four times as far as growth was seen, then its confidence
falls: two seconds of loading foretell nothing about the next minute. A first tooth is growth like any other; those
after it are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from membudget_sidecar.deciding.growth import NOISE_BYTES, WINDOWS, Course, Growth
from membudget_sidecar.kernel.reading import Absent, Reading

CONFIDENT: Final = 0.5
"""From here on a forecast may be acted on."""
REACH: Final = 4.0
"""Times the seconds seen that growth is carried forward in full confidence: so a burst that only the shortest window
shows is confident 6 s ahead, and half-way to a limit everything is."""
STARTING_REACH_SECONDS: Final = 10.0
"""While an engine starts, only a limit as near as this is foretold: loading ends, and usually before the limit."""

_SOONER: Final = 0.5
"""What a shorter window must make of the time to contradict a longer one: noise alone does not halve it."""
_NOTHING: Final = Absent("no sample yet")
_NO_GROWTH: Final = Absent("no steady growth")
_FLATTENS: Final = Absent("growth flattens before the limit")
_STARTING: Final = Absent("the engine is starting")


@dataclass(frozen=True, slots=True)
class Forecast:
    """The limit is reached in `seconds` from the last sample, at `bytes_per_second`.

    `confidence`, 0 to 1, is a share and no probability: how even the growth was, times how far the time seen carries.
    """

    seconds: float
    bytes_per_second: float
    confidence: float


class Trend:
    """Follows one signal; about 300 points whatever the number of samples."""

    def __init__(self) -> None:
        self._course = Course()
        self._latest: Reading = _NOTHING

    def record(self, now: float, reading: Reading) -> None:
        """A sample; `now` in seconds of the monotonic clock, the reading in bytes. An absent one is a gap."""
        self._latest = reading
        if not isinstance(reading, Absent):
            self._course.record(now, reading)

    def forget(self) -> None:
        """Another engine: its growth is its own."""
        self._course.forget()
        self._latest = _NOTHING

    def seconds_to(self, limit_bytes: int) -> Forecast | Absent:
        """When the limit is reached, or why nothing can be said.

        While the latest reading is absent, so is the forecast. Teeth reach a limit with their peaks: within a known
        saw-tooth the time is that of the highest one, if the troughs grow at all.
        """
        if isinstance(self._latest, Absent):
            return self._latest
        if self._latest >= limit_bytes:
            return Forecast(0.0, 0.0, 1.0)
        peak = self._course.tooth_peak()
        remaining = limit_bytes - (self._latest if peak is None or peak >= limit_bytes else max(self._latest, peak))
        best: Forecast | None = None
        ending_rate = 0.0
        for window in reversed(WINDOWS):
            growth = self._course.growth(window)
            if growth is None or growth.grown_bytes < NOISE_BYTES or growth.bytes_per_second * _SOONER < ending_rate:
                continue
            if _reachable_bytes(growth) < remaining:
                ending_rate = growth.bytes_per_second
            else:
                best = _better(best, _forecast(growth, remaining))
        if best is None:
            return _FLATTENS if ending_rate else _NO_GROWTH
        return _STARTING if self._course.started_at is None and best.seconds > STARTING_REACH_SECONDS else best


def _forecast(growth: Growth, remaining: int) -> Forecast:
    seconds = remaining / growth.bytes_per_second
    carried = min(1.0, REACH * growth.seconds / seconds)
    return Forecast(seconds, growth.bytes_per_second, growth.evenness * carried)


def _better(longer: Forecast | None, shorter: Forecast) -> Forecast:
    if longer is None:
        return shorter
    if longer.confidence < CONFIDENT:
        return max(longer, shorter, key=lambda forecast: forecast.confidence)
    sooner = shorter.seconds < _SOONER * longer.seconds
    return shorter if sooner and shorter.confidence >= CONFIDENT else longer


def _reachable_bytes(growth: Growth) -> float:
    """What is still to come if growth flattens on as it did: a start-up ramp ends of itself.

    The rate falls by `slowing` in half a window; its sum to infinity is the rate now times the time constant.
    """
    if growth.slowing >= 1:
        return math.inf
    time_constant = growth.seconds / 2 / -math.log(growth.slowing)
    return growth.bytes_per_second * math.sqrt(growth.slowing) * time_constant
