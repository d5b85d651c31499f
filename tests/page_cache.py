"""Which pages of a file the kernel holds in memory, whoever read them.

Asks by mincore(2) with code of its own, so that it can testify against what membudget reports. Only who owns a file or
may write it is told the truth: anybody else sees all pages as held.
"""

import ctypes
import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pages = npt.NDArray[np.bool_]
"""For each page of a file: whether it is meant, mapped or in memory."""


def pages_in_memory(file: Path) -> Pages:
    """For each page of the file whether it is in the page cache. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        exported = ctypes.c_char.from_buffer(mapped)
        states = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(exported)), ctypes.c_size_t(len(mapped)), states)
        del exported
    if failed:
        raise OSError(ctypes.get_errno(), f"mincore of {file}")
    return (np.frombuffer(bytes(states), dtype=np.uint8) & 1) == 1
