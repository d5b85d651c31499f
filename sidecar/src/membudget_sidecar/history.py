"""The last samples of one figure, and what they say together.

Covers a ring of times and bytes with its statistics. Does not cover rates and time to the limit (`trend`) nor
levels (`ladder`). A sample that is absent keeps its place, time and reason, and takes no part in any
statistic.

Memory: 16 bytes of times and bytes and an 8-byte reference to a reason per sample, 24 kB for the default of
1,000. Equal reasons in a row are kept once. Reasons are cut at 300 characters, so even 1,000 different ones
stay under 0.6 MB.
"""

import math
from array import array

from membudget_sidecar.kernel.reading import Absent, Fraction, Reading

DEFAULT_CAPACITY = 1000
_LONGEST_REASON = 300
_ABSENT = -1.0  # no figure of bytes is negative


class History:
    """A ring of (time, bytes) in order of recording; the oldest gives way when it is full. For one thread."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"a history of {capacity} samples holds nothing: give at least 1")
        self._capacity = capacity
        self._times = array("d")  # seconds of the monotonic clock
        self._bytes = array("d")  # exact up to 2**53 bytes, 8 PiB
        self._reasons: list[Absent | None] = []
        self._oldest = 0
        self._latest: Reading = Absent("no sample yet")
        self._peak: Reading = Absent("no sample yet")

    def __len__(self) -> int:
        return len(self._times)

    def record(self, taken_at: float, reading: Reading) -> None:
        """Adds a sample; `taken_at` in seconds of the monotonic clock, the reading in bytes."""
        reading = self._shared(reading)
        self._latest = reading
        if isinstance(reading, Absent):
            figure, reason = _ABSENT, reading
        else:
            figure, reason = float(reading), None
            self._peak = reading if isinstance(self._peak, Absent) else max(self._peak, reading)
        if len(self._times) < self._capacity:
            self._times.append(taken_at)
            self._bytes.append(figure)
            self._reasons.append(reason)
            return
        self._times[self._oldest] = taken_at
        self._bytes[self._oldest] = figure
        self._reasons[self._oldest] = reason
        self._oldest = (self._oldest + 1) % self._capacity

    def samples(self) -> list[tuple[float, Reading]]:
        """All that is kept, oldest first: seconds of the monotonic clock, bytes or their absence."""
        places = [*range(self._oldest, len(self._times)), *range(self._oldest)]
        return [(self._times[place], self._at(place)) for place in places]

    def current(self) -> Reading:
        """The latest sample in bytes, absent when that one is absent."""
        return self._latest

    def peak(self) -> Reading:
        """The largest bytes since this history or its engine began, also after the ring let that sample go.

        At ten samples a second the ring covers 100 seconds; a peak forgotten by then would mislead whoever
        sizes a budget.
        """
        return self._peak

    def forget_peak(self) -> None:
        """Another process: the peak from now on is its own, the samples stay."""
        self._peak = Absent("no sample since the engine restarted")

    def average(self) -> Fraction:
        """The mean in bytes of the samples kept, each counting alike whatever the time between them."""
        figures = self._figures()
        return math.fsum(figures) / len(figures) if figures else Absent("no sample with a figure")

    def deviation(self) -> Fraction:
        """The standard deviation in bytes of the samples kept: of the population, divided by their number."""
        average = self.average()
        if isinstance(average, Absent):
            return average
        figures = self._figures()
        return math.sqrt(math.fsum((figure - average) ** 2 for figure in figures) / len(figures))

    def pressure(self, budget: int) -> Fraction:
        """The latest sample over the budget in bytes, clipped to 0..1; absent when the sample is."""
        if isinstance(self._latest, Absent):
            return self._latest
        return min(1.0, self._latest / budget) if budget > 0 else Absent(f"a budget of {budget} bytes")

    def _shared(self, reading: Reading) -> Reading:
        """The same object for equal absences in a row, with a bounded reason."""
        if not isinstance(reading, Absent):
            return reading
        bounded = Absent(reading.reason[:_LONGEST_REASON])
        return self._latest if bounded == self._latest else bounded

    def _at(self, place: int) -> Reading:
        return self._reasons[place] or int(self._bytes[place])

    def _figures(self) -> list[float]:
        return [figure for figure in self._bytes if figure >= 0]
