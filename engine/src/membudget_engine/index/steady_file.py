"""Covers writing a large file so that little of it is in memory at any time.

It does not cover what is written (faiss_writer, compact_build, sealing). Pages that are written and not synced cannot
be reclaimed: under a tight limit they would pile up until the kernel kills, since version 1 of the cgroups throttles
no writer. So they are synced as they come, and dropped from the page cache.
"""

import os
from collections.abc import Iterable
from typing import BinaryIO, Final

SYNC_BYTES: Final = 8 * 1024 * 1024


class SteadyFile:
    """Writes through to the disk after every 8 MB."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._unsynced = 0

    def write(self, data: bytes | memoryview) -> None:
        """Raises OSError."""
        self._stream.write(data)
        self._unsynced += len(data) if isinstance(data, bytes) else data.nbytes
        if self._unsynced >= SYNC_BYTES:
            self._stream.flush()
            os.fdatasync(self._stream.fileno())
            os.posix_fadvise(self._stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self._unsynced = 0

    def writelines(self, blocks: Iterable[bytes | memoryview]) -> None:
        """One after the other. Raises OSError."""
        for block in blocks:
            self.write(block)
