"""Residency of another process, seen from outside while a test runs.

Reads /proc with code of its own, so that it can testify against what membudget reports.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ResidentSample:
    """Bytes at one moment, in seconds of the monotonic clock."""

    taken_at: float
    resident: int
    anonymous: int


class ResidentSampler:
    """Samples VmRSS and RssAnon of a pid every 50 ms in a thread, first at start, last at stop; less if it ends."""

    def __init__(self, pid: int) -> None:
        self.samples: list[ResidentSample] = []
        self._status = Path(f"/proc/{pid}/status")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"resident-sampler-{pid}", daemon=True)

    def start(self) -> None:
        """Takes the first sample at once."""
        self._thread.start()

    def stop(self) -> None:
        """Takes a last sample and ends; the samples stay."""
        self._stopped.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def max_resident(self) -> int:
        """The largest VmRSS seen, in bytes. Raises ValueError when the process was never seen."""
        return max(sample.resident for sample in self.samples)

    @property
    def max_anonymous(self) -> int:
        """The largest RssAnon seen, in bytes. Raises ValueError when the process was never seen."""
        return max(sample.anonymous for sample in self.samples)

    def _run(self) -> None:
        last = False
        while (sample := self._sample()) is not None:
            self.samples.append(sample)
            if last:
                return
            last = self._stopped.wait(_INTERVAL_SECONDS)

    def _sample(self) -> ResidentSample | None:
        """None when the process is gone or a zombie, which has no memory lines any more."""
        try:
            text = self._status.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        kibibytes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith(" kB")}
        if "VmRSS:" not in kibibytes:
            return None
        return ResidentSample(time.monotonic(), kibibytes["VmRSS:"] * 1024, kibibytes["RssAnon:"] * 1024)
