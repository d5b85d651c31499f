"""Finds what grows inside this process: types, lines of code, reference cycles. Off unless asked.

Covers: switching it on and off, labelled snapshots in figures, slope and peak of the process' memory, and its own cost.
Does not cover suspicion without a detector (the sidecar's `leaks`), nor bytes that the runtime manages, which a
ceiling bounds. Neighbours: `object_counts`, `allocation_sites`, `reference_cycles`.

Nothing here refers to an object of the service: names, numbers and file names are all that is kept. Cost while on:
under 5 MB, and 2 us for each allocation of Python's (`tests/runtime/test_leak_detector.py` measures both). A snapshot
takes 130 B more for each traced block while it is taken. Over TRACE_BYTES tracing ends and says so.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from membudget_contract.leak_detector_api import CyclesFound, HeapSnapshot, LeakFindings
from membudget_runtime.errors import DetectorOff
from membudget_runtime.interpreter.allocation_sites import (
    AllocationTrace,
    Frames,
    SiteUse,
    grown_sites,
    largest_sites,
)
from membudget_runtime.interpreter.object_counts import count_objects, grown_types
from membudget_runtime.interpreter.reference_cycles import find_cycles
from membudget_runtime.periodic import Periodic

LOOK_SECONDS: Final = 10.0
READINGS: Final = 720
"""Two hours of them: 80 kB."""
SNAPSHOTS: Final = 10
"""Kept with what they counted: the first and the newest."""
TRACE_BYTES: Final = 2 * 1024 * 1024
"""Of tracemalloc's tables: about 27,000 live blocks. In the heap they take twice as much."""
TRACE_ENDED: Final = "tracing ended"
"""Label of the snapshot that is taken before."""
HOUR_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Noted:
    """A snapshot with what it counted."""

    snapshot: HeapSnapshot
    types: Mapping[str, int]
    sites: Mapping[Frames, SiteUse]

    def cost_bytes(self) -> int:
        """Tables and keys; the names are shared with those of other snapshots."""
        return sys.getsizeof(self.types) + sys.getsizeof(self.sites) + sum(map(_cost, self.sites))


class LeakDetector:
    """One in a process. Thread-safe.

    `read_bytes` tells the process' memory, None when the kernel did not say; `trim` gives the heap's free pages to the
    kernel; `uninterrupted` keeps collections out of a section (`GcTuner.uninterrupted`).
    """

    def __init__(
        self,
        *,
        read_bytes: Callable[[], int | None],
        trim: Callable[[], object],
        uninterrupted: Callable[[], AbstractContextManager[None]],
        clock: Callable[[], float],
    ) -> None:
        self._read_bytes = read_bytes
        self._trim = trim
        self._uninterrupted = uninterrupted
        self._clock = clock
        self._lock = threading.RLock()  # a finalizer may come back here while it is held
        self._look: Periodic | None = None
        self._trace: AllocationTrace | None = None
        self._problem: str | None = None
        self._on_since = 0.0
        self._noted: deque[_Noted] = deque()
        self._readings: deque[tuple[float, int]] = deque(maxlen=READINGS)
        self._peak: int | None = None

    def start(self) -> None:
        """Trace allocations and read the process' memory from now on; when it is on already nothing changes."""
        with self._lock:
            if self._look is not None:
                return
            self._problem, self._peak, self._on_since = None, None, self._clock()
            self._trace = AllocationTrace()
            self.snapshot("start")
            self._look = Periodic("leak-detector", LOOK_SECONDS, self.look)

    def stop(self) -> None:
        """End, and forget everything; when it is off nothing changes."""
        with self._lock:
            look, self._look = self._look, None
            self._end_trace()
            self._noted.clear()
            self._readings.clear()
        if look is not None:
            look.close()  # not under the lock, which `look` may wait for

    def look(self) -> None:
        """Read the process' memory, and end tracing where it costs too much; done by itself each LOOK_SECONDS."""
        with self._lock:
            if self._trace is not None and self._trace.cost_bytes() > TRACE_BYTES:
                self.snapshot(TRACE_ENDED)
                self._problem = f"tables of traced allocations passed {TRACE_BYTES} bytes: sites are no longer traced"
                self._end_trace()
                self._trim()
            self._read(self._clock() - self._on_since)

    def snapshot(self, label: str) -> HeapSnapshot:
        """Note what there is now. Takes about 0.1 s with 300,000 objects, and memory for a moment (`sites`).

        Raises:
            DetectorOff: it was not switched on.
        """
        with self._lock:
            trace = self._trace
            if trace is None and self._look is None:
                raise DetectorOff("the leak detector is off; switch it on, wait, then take a snapshot")
            after = self._clock() - self._on_since
            types = count_objects()
            snapshot = HeapSnapshot(
                label=label,
                after_seconds=after,
                process_bytes=self._read(after),
                traced_bytes=trace.held_bytes() if trace else 0,
                objects=sum(types.values()),
            )
            sites = trace.sites() if trace else self._noted[-1].sites
            self._noted.append(_Noted(snapshot, types, sites))
            if len(self._noted) > SNAPSHOTS:
                del self._noted[1]
            self._trim()  # what counting took lies in the heap
            return snapshot

    def findings(self) -> LeakFindings:
        """What grew since the first snapshot, as the newest one has it."""
        with self._lock:
            if self._look is None:
                return LeakFindings(on=False)
            first, newest = self._noted[0], self._noted[-1]
            return LeakFindings(
                on=True,
                snapshots=tuple(noted.snapshot for noted in self._noted),
                bytes_per_hour=bytes_per_hour(self._readings),
                peak_bytes=self._peak,
                types=grown_types(first.types, newest.types),
                grown_sites=grown_sites(first.sites, newest.sites),
                largest_sites=largest_sites(newest.sites),
                cost_bytes=self._cost_bytes(),
                problem=self._problem,
            )

    def cycles(self) -> CyclesFound:
        """Find and free objects that only hold each other. The process stands still meanwhile; on or off."""
        return find_cycles(self._uninterrupted)

    def _read(self, after: float) -> int | None:
        reading = self._read_bytes()
        if reading is not None:
            self._readings.append((after, reading))
            self._peak = max(self._peak or 0, reading)
        return reading

    def _end_trace(self) -> None:
        if self._trace is not None:
            self._trace.close()
            self._trace = None

    def _cost_bytes(self) -> int:
        tables = self._trace.cost_bytes() if self._trace else 0
        return tables + sum(noted.cost_bytes() for noted in self._noted) + sum(map(_cost, self._readings))


def bytes_per_hour(readings: Sequence[tuple[float, int]]) -> int | None:
    """Slope of the line with the least squares through (seconds, bytes); None where no line is determined."""
    if not readings:
        return None
    middle = sum(at for at, _ in readings) / len(readings)
    spread = sum((at - middle) ** 2 for at, _ in readings)
    if spread == 0:
        return None
    return round(HOUR_SECONDS * sum((at - middle) * held for at, held in readings) / spread)


def _cost(kept: Sequence[object]) -> int:
    """Of a tuple and what it holds."""
    return sys.getsizeof(kept) + sum(map(sys.getsizeof, kept))
