"""A file that is whole or is not there: written beside its place, synced, renamed.

Covers: one new or replaced file. Does not cover what is in it (`spill`, `entry_file`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def aside_of(path: Path) -> Path:
    """Where the file is written; what lies there when nobody writes was left by a process that was killed."""
    return path.with_name(path.name + ".part")


@contextmanager
def written_aside(path: Path) -> Generator[BinaryIO]:
    """A file to write to, at its place when the block ends; a block that fails leaves what was there before.

    Raises:
        OSError: the folder is missing, full or read-only, or something lies at `aside_of(path)`.
    """
    aside = aside_of(path)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            # Written pages would stay charged to this cgroup as page cache.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        aside.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
