"""A process's memory as a third party reads it from the kernel.

Covers: a resident set reading every 50 ms by psutil, not by membudget's own readers, and what an action freed by
these readings. Does not cover what sidecar and engine say of themselves.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Final

import psutil

INTERVAL_SECONDS: Final = 0.05
WINDOW_SECONDS: Final = 0.3
"""Readings this long before and after an action count: six of each."""


class Witness:
    """Reads one process until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._readings: list[tuple[float, int]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="witness", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stopped.set()
        self._thread.join()

    @property
    def readings(self) -> list[tuple[float, int]]:
        """Unix seconds and resident bytes, oldest first."""
        return [*self._readings]

    @property
    def latest_bytes(self) -> int | None:
        """The last reading; None before the first."""
        return self._readings[-1][1] if self._readings else None

    def peak_bytes(self, since: float, until: float) -> int | None:
        """The largest reading between two moments (unix seconds)."""
        return max((rss for at, rss in self._readings if since <= at <= until), default=None)

    def freed_bytes(self, started_at: float, finished_at: float) -> int | None:
        """Median before minus median after an action; None when one side was not seen."""
        before = [rss for at, rss in self._readings if started_at - WINDOW_SECONDS <= at <= started_at]
        after = [rss for at, rss in self._readings if finished_at <= at <= finished_at + WINDOW_SECONDS]
        if not before or not after:
            return None
        return int(statistics.median(before) - statistics.median(after))

    def _read_on(self) -> None:
        while not self._stopped.wait(INTERVAL_SECONDS):
            try:
                self._readings.append((time.time(), self._process.memory_info().rss))
            except psutil.Error:
                return
