"""This process's own memory, read from the kernel, and given back to it.

Covers: the three signals from `/proc/self` and `malloc_trim`. Does not cover other processes or cgroups: those
are the sidecar's (`membudget_sidecar.kernel.process`, `.cgroup`). A reading that fails is None, never 0.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Final

from membudget_contract.policy import Signal

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_M_ARENA_MAX: Final = -8
"""`mallopt` parameter of glibc's malloc.h."""

_STATUS_FIELDS: Final = re.compile(rb"^(RssAnon|RssShmem|VmPTE):\s+(\d+) kB$", re.MULTILINE)


class OwnMemory:
    """Readings of one process's `/proc` folder, kept open: 2 us for statm, 9 us for status."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._statm = (proc / "statm").open("rb", buffering=0)
        self._status = (proc / "status").open("rb", buffering=0)

    def signal_bytes(self, signal: Signal) -> int | None:
        """Bytes of the signal as this process can see them, None when the kernel did not say.

        Unreclaimable is RssAnon + RssShmem + VmPTE, the form without a cgroup. The working set belongs to a
        cgroup, which is not read here: the resident set stands for it where no better figure is at hand. It is no
        bound of it: pages that files were read through are not resident, mapped ones nobody reads are not in the set.
        """
        try:
            if signal is Signal.UNRECLAIMABLE:
                return self._unreclaimable()
            return int(os.pread(self._statm.fileno(), 128, 0).split()[1]) * PAGE_BYTES
        except (OSError, ValueError, IndexError):
            return None

    def _unreclaimable(self) -> int | None:
        fields = dict(_STATUS_FIELDS.findall(os.pread(self._status.fileno(), 4096, 0)))
        if b"RssAnon" not in fields:
            return None
        return sum(int(kilobytes) for kilobytes in fields.values()) * 1024

    def close(self) -> None:
        """Close the kernel's files."""
        self._statm.close()
        self._status.close()


class Allocator:
    """The C allocator of this process: one arena, and free memory back to the kernel on demand.

    Under jemalloc `malloc_trim` must not be called (it is glibc's and corrupts nothing but does nothing useful);
    there and on other libcs both calls do nothing and say so.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        foreign = hasattr(libc, "mallctl") or hasattr(libc, "mi_malloc")
        self._trim = getattr(libc, "malloc_trim", None) if not foreign else None
        self._mallopt = getattr(libc, "mallopt", None) if not foreign else None

    def use_one_arena(self) -> bool:
        """Let all threads allocate from one heap, so that freed memory can be given back whole.

        With an arena per thread `malloc_trim` returns about half; with one it returns all.
        Must run before threads start. False where this allocator has no such switch.
        """
        return bool(self._mallopt and self._mallopt(_M_ARENA_MAX, 1))

    def trim(self) -> bool:
        """Give free heap pages back to the kernel; True when the allocator gave some."""
        return bool(self._trim and self._trim(0))
