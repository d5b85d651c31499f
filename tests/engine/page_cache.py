"""A file's pages in the page cache: dropping them, and whether its file system tells of them."""

import os
from pathlib import Path

import pytest


def drop_from_page_cache(file: Path) -> None:
    """The next read is the disk's. Skips the test where the file system keeps everything in memory."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            pytest.skip(f"{file.parent} is on a file system that does not tell what it has in memory: {error}")
    finally:
        os.close(descriptor)
    pytest.skip(f"{file.parent} is on a file system that keeps what it has in memory")
