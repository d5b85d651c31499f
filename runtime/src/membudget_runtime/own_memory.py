"""This process's own memory, read from the kernel, and given back to it.

Covers: the three signals from `/proc/self`, and free pages of the C library's heap. Does not cover other processes or
cgroups: those are the sidecar's (`membudget_sidecar.kernel.process`, `.cgroup`). A reading that fails is None, never 0.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from membudget_contract.policy import Signal

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_M_ARENA_MAX: Final = -8
"""`mallopt` parameter of glibc's malloc.h."""
_PURGE_ALL_ARENAS: Final = b"arena.4096.purge"
"""`mallctl` name; 4096 is MALLCTL_ARENAS_ALL of jemalloc.h."""

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

    Knows glibc, and jemalloc and tcmalloc where they were loaded before it, by their own calls. glibc's `malloc_trim`
    is never called under another allocator, whose heap it does not know. With a fourth one both calls do nothing and
    say so.
    """

    def __init__(self, library: ctypes.CDLL | None = None) -> None:
        """`library` has the symbols of the process; it is looked up when not given."""
        symbols = library or ctypes.CDLL(None)
        self.name, self._give_back = _known_allocator(symbols)
        self._mallopt = getattr(symbols, "mallopt", None) if self.name == "glibc" else None

    def use_one_arena(self) -> bool:
        """Let all threads allocate from one heap: a burst in many of them leaves less, and one to trim.

        What that gains and costs: docs/decisions/0018. Must run before threads start. False where this allocator has no
        such switch.
        """
        return bool(self._mallopt and self._mallopt(_M_ARENA_MAX, 1))

    def trim(self) -> bool:
        """Give free heap pages back to the kernel; False when it gave none, or this allocator cannot be asked."""
        return self._give_back()


def _known_allocator(symbols: ctypes.CDLL) -> tuple[str, Callable[[], bool]]:
    """Name, and the call that gives free pages back."""
    if hasattr(symbols, "mallctl"):
        return "jemalloc", lambda: symbols.mallctl(_PURGE_ALL_ARENAS, None, None, None, ctypes.c_size_t(0)) == 0
    if hasattr(symbols, "MallocExtension_ReleaseFreeMemory"):
        release = symbols.MallocExtension_ReleaseFreeMemory
        release.restype = None
        return "tcmalloc", lambda: release() is None
    if hasattr(symbols, "malloc_trim") and not hasattr(symbols, "mi_malloc"):
        return "glibc", lambda: bool(symbols.malloc_trim(0))
    return "unknown", lambda: False
