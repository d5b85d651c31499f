"""What the kernel says from outside: a cgroup's figures, and which pages of a file a process has mapped.

Reads with code of its own, so that it can testify against what membudget reports. Beside `resident_sampler`, which
samples RSS.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from memory_cgroup import MemoryCgroup
from page_cache import Pages

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ENTRY_BYTES = 8
_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Charged:
    """Bytes charged to a v1 cgroup at one moment."""

    taken_at: float
    """Seconds of the monotonic clock."""
    working_set: int
    """usage - inactive_file: what the kubelet evicts on."""
    unreclaimable: int


def charged(cgroup: MemoryCgroup) -> Charged:
    """The figures of now."""
    stat = dict(line.split() for line in (cgroup.path / "memory.stat").read_text().splitlines())
    usage = int((cgroup.path / "memory.usage_in_bytes").read_text())
    kernel = int((cgroup.path / "memory.kmem.usage_in_bytes").read_text())
    return Charged(
        taken_at=time.monotonic(),
        working_set=usage - int(stat["total_inactive_file"]),
        unreclaimable=int(stat["total_rss"]) + int(stat["total_shmem"]) + kernel,
    )


class ChargeSampler:
    """Samples a cgroup every 50 ms while a with block runs."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self.samples: list[Charged] = []
        self._cgroup = cgroup
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="charge-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL_SECONDS):
            self.samples.append(charged(self._cgroup))


def resident_bytes(pid: int) -> int:
    """RSS by statm: what `top` shows."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def read_bytes(pid: int) -> int:
    """What the process had read from the disk since its start."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def mapped_pages(pid: int, file: Path) -> Pages:
    """Which pages of a file are in the page table of a process: its share of RSS."""
    mapped = np.zeros(-(-file.stat().st_size // PAGE_BYTES), dtype=np.bool_)
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if not line.endswith(str(file)):
                continue
            addresses, _, offset = line.split()[:3]
            first, end = (int(address, 16) // PAGE_BYTES for address in addresses.split("-"))
            pagemap.seek(first * _ENTRY_BYTES)
            entries = np.frombuffer(pagemap.read((end - first) * _ENTRY_BYTES), dtype=np.uint64)
            at = int(offset, 16) // PAGE_BYTES
            mapped[at : at + len(entries)] |= ((entries >> np.uint64(63)) == 1)[: len(mapped) - at]
    return mapped
