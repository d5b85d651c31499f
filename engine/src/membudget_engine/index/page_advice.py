"""Covers what the kernel is asked about the pages of a mapping: where it lies, what is resident, madvise, fadvise.

It does not cover which pages to give back (mapped). Constants carry their kernel names. Everything works on addresses,
so whoever calls must keep the mapping alive during the call.
"""

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

MADV_NORMAL: Final = 0
MADV_DONTNEED: Final = 4
MADV_COLD: Final = 20
MADV_PAGEOUT: Final = 21
MADV_POPULATE_READ: Final = 22

_PAGEMAP_PRESENT: Final = np.uint64(1 << 63)
_PAGEMAP_ENTRY_BYTES: Final = 8
_PAGEMAP_READ_BYTES: Final = 1024 * 1024
"""Entries for 512 MB of mapping at a time."""

_MAPS_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ ([0-9]+)")

Address = TypeVar("Address", int, npt.NDArray[np.int64])

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.restype = ctypes.c_int


@dataclass(frozen=True)
class PageRange:
    """Addresses from start up to end, both on page borders."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class FileMapping:
    """A range that maps a file from `offset` on."""

    range: PageRange
    offset: int


def page_borders(start: Address, end: Address) -> tuple[Address, Address]:
    """From where to where the pages lie that hold the bytes from `start` up to `end`, or those of each pair."""
    return start & -PAGE_BYTES, (end + PAGE_BYTES - 1) & -PAGE_BYTES


def file_mapping_at(address: int, maps: Path = Path("/proc/self/maps")) -> FileMapping | None:
    """The mapping around an address, or None when that memory comes from no file. Raises OSError."""
    with maps.open() as lines:
        for line in lines:
            match = _MAPS_LINE.match(line)
            if match and int(match[1], 16) <= address < int(match[2], 16):
                mapped = PageRange(int(match[1], 16), int(match[2], 16))
                return None if match[4] == "0" else FileMapping(mapped, int(match[3], 16))
    return None


def advise(pages: PageRange, advice: int) -> None:
    """madvise(2) on a range. Raises OSError; note that MADV_PAGEOUT may do nothing without any error."""
    if _libc.madvise(pages.start, pages.size, advice) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"madvise({pages.start:#x}, {pages.size}, {advice}): {os.strerror(number)}")


def resident_pages(pages: PageRange, pagemap: Path = Path("/proc/self/pagemap")) -> npt.NDArray[np.bool_]:
    """For each page of a range whether it is in this process's page table, which is what counts into its RSS.

    Raises OSError when the kernel does not tell, also for a short answer: unknown is not zero.
    """
    wanted = pages.size // PAGE_BYTES * _PAGEMAP_ENTRY_BYTES
    parts: list[npt.NDArray[np.bool_]] = []
    with pagemap.open("rb", buffering=0) as entries:
        entries.seek(pages.start // PAGE_BYTES * _PAGEMAP_ENTRY_BYTES)
        while wanted:
            raw = entries.read(min(wanted, _PAGEMAP_READ_BYTES))
            if not raw or len(raw) % _PAGEMAP_ENTRY_BYTES:
                raise OSError(f"{pagemap} ended {wanted} bytes early at {pages.start:#x}")
            parts.append((np.frombuffer(raw, dtype=np.uint64) & _PAGEMAP_PRESENT) != 0)
            wanted -= len(raw)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.bool_)


def resident_bytes(pages: PageRange) -> int:
    """Bytes of a range in this process's page table. Raises OSError."""
    return int(np.count_nonzero(resident_pages(pages))) * PAGE_BYTES


def touch(pages: PageRange) -> None:
    """Reads one byte of each page, for kernels before 5.14 that have no MADV_POPULATE_READ."""
    for address in range(pages.start, pages.end, PAGE_BYTES):
        ctypes.string_at(address, 1)


def drop_from_page_cache(file: Path, mapping: FileMapping, pages: PageRange) -> None:
    """posix_fadvise(POSIX_FADV_DONTNEED) on the part of the file under these pages.

    A file that is gone is no error: its pages leave with its last mapping. Large folios that lie only partly in the
    range stay. Raises OSError.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        offset = mapping.offset + pages.start - mapping.range.start
        os.posix_fadvise(descriptor, offset, pages.size, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
