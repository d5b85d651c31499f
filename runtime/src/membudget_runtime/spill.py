"""Values on disk: where the ladder's second rung puts what memory cannot hold.

Covers: batches written by one sequential write, fsynced and renamed into place, a checksum on every record, a
bound on the folder, errors that leave the values in memory. Does not cover which values go (`cache`) or what
survives a restart: a spill folder is emptied when its process starts.

Format of a batch file: 8 bytes magic and version, then the records' bytes one after the other. Place, length and
CRC-32 of each record stay in memory. No pickle.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from membudget_runtime.errors import SpillDamaged, SpillFailed, SpillUnread
from membudget_runtime.written_aside import written_aside

MAGIC: Final = b"MBSPILL1"
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes gathered for one write: the memory that spilling itself needs."""

PIECE_BYTES: Final = 64 * 1024
"""Written by one call: for larger ones the kernel looks for large pages of its cache, at 2 to 10 times the time."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A pipe in place of a batch would let the open wait for its writer."""
_PASSING: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_NAME: Final = re.compile(r"batch-[0-9]+-[0-9]+(\.part)?")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Batch:
    path: Path
    size: int
    live: int


class SpillPlace:
    """Where one record lies on disk."""

    __slots__ = ("batch", "checksum", "length", "offset")

    def __init__(self, batch: _Batch, offset: int, length: int, checksum: int) -> None:
        self.batch = batch
        self.offset = offset
        self.length = length
        self.checksum = checksum


class SpillStore:
    """A folder of batches, bounded in bytes. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Create the folder (0700) or empty it of the batches of an earlier process.

        Raises:
            SpillFailed: the folder cannot be made or is no folder.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._next = 0
        self._lock = threading.Lock()
        _make(folder)
        for path in folder.iterdir():
            # Only names of our own making; unlink never follows a link.
            if _NAME.fullmatch(path.name):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    log.warning("left in the spill folder: %s: %s", path, error.strerror)

    def write(self, records: Sequence[bytes | memoryview]) -> list[SpillPlace]:
        """Write one batch; all records are on disk when this returns, or none is.

        Raises:
            SpillFailed: the bound is reached, or the file system refused.
        """
        if not records:
            return []  # a file without a record would never be released
        size = len(MAGIC) + sum(map(len, records))
        _make(self.folder)  # somebody may have cleaned up
        with self._lock:
            if self.used_bytes + size > self.max_bytes:
                raise SpillFailed(f"{self.folder} holds {self.used_bytes} of {self.max_bytes} bytes, {size} more asked")
            self.used_bytes += size
            self._next += 1
            path = self.folder / f"batch-{os.getpid()}-{self._next}"
        try:
            with written_aside(path) as file:
                file.write(MAGIC)
                places = _written(file, _Batch(path, size, len(records)), records)
        except BaseException as error:
            with self._lock:
                self.used_bytes -= size
            if isinstance(error, OSError):
                raise SpillFailed(f"{path} was not written: {error.strerror}") from None
            raise
        return places

    def read(self, place: SpillPlace) -> bytes:
        """The record as it was written.

        Raises:
            SpillDamaged: the file is gone, short or changed, or the disk failed.
            SpillUnread: not now; the record is still there.
        """
        try:
            descriptor = os.open(place.batch.path, _READ)
            try:
                record = os.pread(descriptor, place.length, place.offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in _PASSING:
                raise SpillUnread(f"{place.batch.path} cannot be read now: {error.strerror}") from None
            raise SpillDamaged(f"{place.batch.path} cannot be read: {error.strerror}") from None
        if len(record) != place.length or zlib.crc32(record) != place.checksum:
            raise SpillDamaged(f"{place.batch.path} at {place.offset} fails its checksum")
        return record

    def release(self, place: SpillPlace) -> None:
        """Forget one record; the file goes with its last one."""
        with self._lock:
            place.batch.live -= 1
            if place.batch.live:
                return
            self.used_bytes -= place.batch.size
        with contextlib.suppress(OSError):
            place.batch.path.unlink()


def _written(file: BinaryIO, batch: _Batch, records: Sequence[bytes | memoryview]) -> list[SpillPlace]:
    """Where the records lie, once the file is synced; the disk is at work while they are summed up."""
    places: list[SpillPlace] = []
    offset = len(MAGIC)
    for group in _groups(records):
        file.writelines(_pieces(group))
        file.flush()
        # Linux begins to write what is dirty of the whole file, and does not wait.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for record in group:
            places.append(SpillPlace(batch, offset, len(record), zlib.crc32(record)))
            offset += len(record)
    return places


def _groups(records: Sequence[bytes | memoryview]) -> Iterator[Sequence[bytes | memoryview]]:
    """As they come, BATCH_BYTES or a little more at a time."""
    first = gathered = 0
    for behind, record in enumerate(records, 1):
        gathered += len(record)
        if gathered >= BATCH_BYTES:
            yield records[first:behind]
            first, gathered = behind, 0
    yield records[first:]


def _pieces(records: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for record in records:
        if len(record) <= PIECE_BYTES:
            yield record
        else:
            view = memoryview(record)
            yield from (view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpillFailed(f"the spill folder {folder} cannot be used: {error.strerror}") from None
    if folder.is_symlink():
        raise SpillFailed(f"the spill folder {folder} cannot be used: it is a link")
