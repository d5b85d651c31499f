"""Covers reading a file from one end to the other by request: what is asked for is read, and what comes next meanwhile.

It does not cover what the bytes are (ingest, index/vector_file) nor rows in any order (index/row_prefetch). The
kernel, left to itself, reads ahead 8 MB twice where the disk is set so; pages on their way cannot be reclaimed, and a
build in a small cgroup was killed for them.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import WriteableBuffer

BLOCK_BYTES: Final = 256 * 1024
"""Read at once, and once more on its way."""


def ask_for(stream: BinaryIO | io.FileIO, offset: int, byte_count: int) -> None:
    """Starts reading these bytes of a file into the page cache; it does not wait for them. Raises OSError."""
    os.posix_fadvise(stream.fileno(), offset, byte_count, os.POSIX_FADV_WILLNEED)


def opened_by_request(file: Path) -> BinaryIO:
    """A stream of a file that is read in order. Raises OSError."""
    return io.BufferedReader(_RequestedFile(file), BLOCK_BYTES)


class _RequestedFile(io.FileIO):
    """Each reading asks for the block behind it."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As FileIO has it."""
        count = super().readinto(buffer)
        ask_for(self, self.tell(), BLOCK_BYTES)
        return count
