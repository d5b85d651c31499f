"""The engine this sidecar stands beside: whether it is there, who it is, what the kernel says of it.

Covers: finding the process behind the control socket, its cgroup, the signal's reading. Does not cover what to do
(`loop`). When the engine restarts, the pid changes and everything is found anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from membudget_contract.policy import Signal
from membudget_sidecar.cgroup import MemoryCgroup, find_memory_cgroup
from membudget_sidecar.control_client import QUESTION_SECONDS, ControlClient
from membudget_sidecar.process import Process
from membudget_sidecar.reading import Absent
from membudget_sidecar.sample import Sample, SignalReading, take_sample
from membudget_sidecar.settings import SidecarSettings

READINGS: Final = 3
READING_PAUSE_SECONDS: Final = 0.005
"""A verified figure is the median of three readings: one page fault more or less must not decide."""


class EngineLink:
    """Follows one control socket. `process` is None until an engine was found."""

    def __init__(self, settings: SidecarSettings) -> None:
        self._settings = settings
        self.client = ControlClient(settings.control_socket, QUESTION_SECONDS)
        self.process: Process | None = None
        self.cgroup: MemoryCgroup | Absent = Absent("no engine was seen yet")

    def find(self) -> bool:
        """Look who listens; True when it is another process than before.

        Raises:
            EngineUnreachable: nobody listens.
        """
        pid = self.client.peer_pid()
        if self.process is not None and self.process.pid == pid and self.process.absence() is None:
            return False
        self.process = Process(self._settings.proc, pid)
        self.cgroup = find_memory_cgroup(self.process, self._settings.cgroup)
        self.client.close()
        return True

    def sample(self, signal: Signal, now: float) -> Sample | Absent:
        """Everything the kernel says, at one moment."""
        if self.process is None:
            return Absent("no engine was seen yet")
        return take_sample(now, signal, self.process, self.cgroup)

    def signal_reading(self, signal: Signal) -> SignalReading:
        """The signal alone, by the cheapest way: statm for the resident set, else a sample."""
        if self.process is None:
            return SignalReading(Absent("no engine was seen yet"), "none")
        if signal is Signal.RESIDENT_SET_SIZE:
            return SignalReading(self.process.resident_bytes(), self.process.resident_source)
        return take_sample(0.0, signal, self.process, self.cgroup).used

    def verified_reading(self, signal: Signal, sleep: Callable[[float], None] = time.sleep) -> SignalReading:
        """The median of three readings; absent when one of them is."""
        readings: list[SignalReading] = []
        for number in range(READINGS):
            if number:
                sleep(READING_PAUSE_SECONDS)
            readings.append(self.signal_reading(signal))
            if isinstance(readings[-1].bytes, Absent):
                return readings[-1]
        return sorted(readings, key=lambda reading: reading.bytes if isinstance(reading.bytes, int) else 0)[1]
