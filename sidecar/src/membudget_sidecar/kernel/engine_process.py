"""The engine's process as the kernel shows it: samples, the signal alone, and the signal as evidence.

Covers: one process with its cgroup, found once. Does not cover finding it (`engine_link`) nor judging what was read
(`verification`). An engine that restarts is another one: readings of the old one are absent from then on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from membudget_contract.policy import Signal
from membudget_sidecar.kernel.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent, SignalReading
from membudget_sidecar.kernel.sample import QuickReading, Sample, read_quickly, read_signal, take_sample

READINGS: Final = 3
READING_PAUSE_SECONDS: Final = 0.002
"""A verified figure is the median of three readings: one page fault more or less must not decide."""


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """Process and cgroup that belong together; any thread may read."""

    process: Process
    cgroup: MemoryCgroup | Absent

    @property
    def pid(self) -> int:
        """As we see it, which in a shared process namespace is as the engine sees it."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Whether the pid still means this process."""
        return self.process.absence() is None

    def sample(self, signal: Signal, now: float) -> Sample:
        """Everything the kernel says, at one moment."""
        return take_sample(now, signal, self.process, self.cgroup)

    def signal_reading(self, signal: Signal) -> SignalReading:
        """The signal alone, by the cheapest way."""
        return read_signal(signal, self.process, self.cgroup)

    def quick_reading(self, signal: Signal) -> QuickReading:
        """The signal and the live limit, by the cheapest way."""
        return read_quickly(signal, self.process, self.cgroup)

    def pressure_files(self) -> tuple[str, ...]:
        """Where the kernel tells of stalls: of this cgroup first, of the host after it."""
        own = () if isinstance(self.cgroup, Absent) else (self.cgroup.pressure_file,)
        return (*own, f"{self.process.proc}/pressure/memory")

    def verified_reading(self, signal: Signal, sleep: Callable[[float], None] = time.sleep) -> SignalReading:
        """The median of three readings; absent when one of them is."""
        readings: list[tuple[int, SignalReading]] = []
        for number in range(READINGS):
            if number:
                sleep(READING_PAUSE_SECONDS)
            reading = self.signal_reading(signal)
            if isinstance(reading.bytes, Absent):
                return reading
            readings.append((reading.bytes, reading))
        return sorted(readings, key=lambda pair: pair[0])[READINGS // 2][1]


def find_engine_process(proc: Path, cgroup_root: Path, pid: int) -> EngineProcess:
    """The process with that pid, and its cgroup if it has one of its own."""
    process = Process(proc, pid)
    return EngineProcess(process, find_memory_cgroup(process, cgroup_root))
