"""Covers having the pages of some rows read side by side, in one call to the kernel.

It does not cover which rows (compact) nor where they lie (float_rows). process_madvise(2) takes all ranges at once:
a call of madvise(2) for each of 50 rows gives the interpreter lock away and asks for it back 50 times, which cost half
of the queries per second. Kernels before 6.13 allow it to CAP_SYS_NICE alone, and those
before 5.10 do not have it: there it is one madvise(2) for each range.
"""

import ctypes
import errno
import os
import weakref
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_engine.index.page_advice import PageRange, advise, page_borders

Ranges = npt.NDArray[np.int64]
"""Of shape (n, 2), writable and in one piece, as struct iovec: where each begins, on a page border, and its bytes."""

MADV_WILLNEED: Final = 3

_PROCESS_MADVISE: Final = 440
"""The same number on every architecture that has it, for it is younger than their common table."""

_REFUSALS: Final = (errno.EPERM, errno.ENOSYS, errno.EINVAL)

_MOST_RANGES: Final = 1024
"""UIO_MAXIOV: what one call takes."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint)


class RowPrefetch:
    """Asks for pages of this process. May be called from any thread, not from a fork."""

    def __init__(self) -> None:
        """Raises OSError without a descriptor to spare."""
        self._process = os.pidfd_open(os.getpid())
        self._one_by_one = False
        weakref.finalize(self, os.close, self._process)

    def ask(self, ranges: Ranges) -> None:
        """Starts reading these ranges; returns before they are there. Raises OSError."""
        for first in range(0, len(ranges), _MOST_RANGES):
            self._ask(ranges[first : first + _MOST_RANGES])

    def _ask(self, ranges: Ranges) -> None:
        if not self._one_by_one:
            address = ctypes.addressof(ctypes.c_char.from_buffer(ranges.data))
            if _syscall(_PROCESS_MADVISE, self._process, address, len(ranges), MADV_WILLNEED, 0) >= 0:
                return
            number = ctypes.get_errno()
            if number not in _REFUSALS:
                raise OSError(number, f"process_madvise of {len(ranges)} ranges: {os.strerror(number)}")
            self._one_by_one = True
        for start, byte_count in ranges.tolist():
            advise(PageRange(start, start + byte_count), MADV_WILLNEED)


def pages_of(addresses: npt.NDArray[np.int64], byte_count: int) -> Ranges:
    """Those on which so many bytes from each of these addresses on lie."""
    begin, end = page_borders(addresses, addresses + byte_count)
    pages = np.empty((len(addresses), 2), dtype=np.int64)
    pages[:, 0], pages[:, 1] = begin, end - begin
    return pages
