"""Entries of a cache in one file, for the next life of the process.

Covers: writing entries, the most valuable first, and reading them back from the last to the first, with a checksum
over each and a count at the end. Does not cover which entries (`persistence`, `cache`) nor values that memory has no
room for (`spill`).

Format: 8 bytes magic and version and the unix seconds of the writing, then records, then an end record. A record is its
checksum, its kind, the lengths of collection, key, stored value and attachment, how often it was used, the seconds it
has to live; then these four. A file of version 1 is read too: it does not say how often. The checksum goes over all of
it, the file's first 16 bytes and the file's name: one that was made for another cache or class is foreign. The end
record's first length is the number of records, its second (in version 2) the checksum over their checksums: good
records of two files of one second are no good file. All little-endian. No pickle.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import zlib
from array import array
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from membudget_runtime.errors import EntriesDamaged, SpillUnread
from membudget_runtime.packing import INFLATED_AT_MOST
from membudget_runtime.written_aside import aside_of, written_aside

MAGIC: Final = b"MBENTRY2"
FORMER_MAGIC: Final = b"MBENTRY1"
TIME_OVER: Final = "time ran out"
SYNC_BYTES: Final = 4 * 1024 * 1024
"""Written between two syncs: what a disk may still have to do when the time to write is over."""
NEVER_TOO_LARGE_BYTES: Final = INFLATED_AT_MOST // 1032
"""Packed; deflate makes at most 1,032 bytes of one."""

_START: Final = struct.Struct("<8sd")
_CHECKSUM: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<BIIIIId")
_FORMER_HEAD: Final = struct.Struct("<BIIIId")
_LENGTHS: Final = 4
_MOST_USES: Final = (1 << 32) - 1
_HEADS: Final = {MAGIC: _HEAD, FORMER_MAGIC: _FORMER_HEAD}
_PLAIN: Final = 0
_PACKED: Final = 1
_END: Final = 2


class KeptEntry(NamedTuple):
    """One entry: `stored` is packed or not; `attachment` is what its owner keeps beside it.

    `uses` says how often it was used, as the order of replacement counts that.
    """

    collection: str
    key: bytes
    stored: bytes
    packed: bool
    seconds_left: float
    attachment: bytes = b""
    uses: int = 0


class Written(NamedTuple):
    """What was written to a file now: nothing where an older one stays."""

    entries: int
    byte_count: int
    cut: str | None
    """Why these are not all of the entries; None when they are."""


class _OlderIsLonger(Exception):
    """What is there holds more than what there was time for."""


def write_entries(
    path: Path, entries: Iterable[KeptEntry], now: float, still_time: Callable[[], bool] = lambda: True
) -> Written:
    """Replace the file by one of these entries, written at unix second `now`, as many as there is time for.

    When they are cut, by the time or by one that cannot be read now, and the older file is longer, that one stays.
    One writer at a time for one path.

    Raises:
        OSError: the folder is missing, full or read-only; the old file is untouched.
    """
    cut: str | None = None
    start = _START.pack(MAGIC, now)
    seed = _seed(start, path)
    aside_of(path).unlink(missing_ok=True)
    with suppress(_OlderIsLonger), written_aside(path) as file:
        file.write(start)
        count, together, cut = _write_records(file, seed, entries, still_time)
        end = _HEAD.pack(_END, count, together, 0, 0, 0, 0.0)
        file.write(_CHECKSUM.pack(zlib.crc32(end, seed)) + end)
        if cut is not None and file.tell() < _older_bytes(path):
            raise _OlderIsLonger
        return Written(count, file.tell(), cut)
    return Written(0, 0, cut)


def _write_records(
    file: BinaryIO, seed: int, entries: Iterable[KeptEntry], still_time: Callable[[], bool]
) -> tuple[int, int, str | None]:
    """How many were written, the checksum over theirs, and why not all."""
    count = synced = together = 0
    try:
        for entry in entries:
            if not still_time():
                return count, together, TIME_OVER
            if entry.packed and len(entry.stored) > NEVER_TOO_LARGE_BYTES and not _inflates(entry.stored):
                continue
            record = _record(seed, entry)
            file.write(record)
            together = zlib.crc32(record[: _CHECKSUM.size], together)
            count += 1
            if file.tell() - synced >= SYNC_BYTES:
                synced = file.tell()
                file.flush()
                os.fdatasync(file.fileno())
    except SpillUnread as error:
        return count, together, str(error)
    return count, together, None


def _older_bytes(path: Path) -> int:
    """Length of the file that is there; 0 for none, and for one that is none of ours."""
    try:
        with _opened(path) as file:
            return os.fstat(file.fileno()).st_size if file.read(len(MAGIC)) in _HEADS else 0
    except (FileNotFoundError, EntriesDamaged):
        return 0


def written_at(path: Path) -> float:
    """The unix second in which the file was written; minus infinity for none, and for one that is none of ours."""
    try:
        with _opened(path) as file:
            start = file.read(_START.size)
    except (FileNotFoundError, EntriesDamaged):
        return -math.inf
    magic, second = _START.unpack(start) if len(start) == _START.size else (b"", 0.0)
    return second if magic in _HEADS else -math.inf


def read_entries(path: Path, now: float) -> Generator[KeptEntry]:
    """The entries from the last to the first, with the time they have left at unix second `now`.

    The whole file is checked before the first is given.

    Raises:
        FileNotFoundError: there is none.
        EntriesDamaged: it is torn, changed, foreign, or cannot be read; nothing was given.
    """
    with _opened(path) as file:
        reader = _Reader(file, path, now)
        for offset in reversed(reader.checked()):
            yield reader.entry(offset)


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    try:
        # A pipe would let the open wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _refuse_foreign(descriptor, path)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EntriesDamaged(f"{path} cannot be read: {error.strerror}") from None


def _refuse_foreign(descriptor: int, path: Path) -> None:
    """Only a plain file that this user wrote, under this name alone, is one of ours."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        raise EntriesDamaged(f"{path} is no plain file of its own, or of another user")


class _Record(NamedTuple):
    checksum: bytes
    kind: int
    lengths: list[int]
    uses: int
    seconds_left: float
    body: bytes


class _Reader:
    def __init__(self, file: BinaryIO, path: Path, now: float) -> None:
        self._file = file
        self._path = path
        self._size = os.fstat(file.fileno()).st_size
        start = self._exactly(_START.size)
        magic, written_at = _START.unpack(start)
        head = _HEADS.get(magic)
        if head is None:
            raise EntriesDamaged(f"{path} is no file of entries, or of another version")
        self._head = head
        # A clock that was set back since must not make entries live longer.
        self._age = max(0.0, now - written_at)
        self._seed = _seed(start, path)

    def checked(self) -> array[int]:
        """Where the records begin, all of them good."""
        offsets, together = array("Q"), 0
        while True:
            offset = self._file.tell()
            record = self._record()
            if record.kind == _END:
                break
            _, _, stored, _ = _parts(record)
            if record.kind == _PACKED and not _inflates(stored):
                raise EntriesDamaged(f"{self._path}: record {len(offsets)} does not inflate")
            offsets.append(offset)
            together = zlib.crc32(record.checksum, together)
        count, said_together = record.lengths[:2]
        if count != len(offsets) or self._file.read(1):
            raise EntriesDamaged(
                f"{self._path} has {len(offsets)} records, its end says {count}, or more follows its end"
            )
        if self._head is _HEAD and said_together != together:
            raise EntriesDamaged(f"{self._path} has records of another file")
        return offsets

    def entry(self, offset: int) -> KeptEntry:
        """The record at this place."""
        self._file.seek(offset)
        record = self._record()
        collection, key, stored, attachment = _parts(record)
        name, left = collection.decode(errors="surrogateescape"), record.seconds_left - self._age
        return KeptEntry(name, key, stored, record.kind == _PACKED, left, attachment, record.uses)

    def _record(self) -> _Record:
        checksum = self._exactly(_CHECKSUM.size)
        head = self._exactly(self._head.size)
        kind, *numbers, seconds_left = self._head.unpack(head)
        lengths, uses = numbers[:_LENGTHS], sum(numbers[_LENGTHS:])
        # Lengths are not to be trusted yet: nothing is allocated for more bytes than there are.
        length = 0 if kind == _END else sum(lengths)
        body = self._exactly(min(length, self._size))
        good = _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(head, self._seed)))
        if len(body) != length or good != checksum or kind > _END:
            raise EntriesDamaged(f"{self._path}: a record fails its checksum")
        return _Record(checksum, kind, lengths, uses, seconds_left, body)

    def _exactly(self, length: int) -> bytes:
        content = self._file.read(length)
        if len(content) != length:
            raise EntriesDamaged(f"{self._path} ends early")
        return content


def _seed(start: bytes, path: Path) -> int:
    return zlib.crc32(path.name.encode(errors="surrogateescape"), zlib.crc32(start))


def _inflates(stored: bytes) -> bool:
    """Whether these are the packed bytes of a value of INFLATED_AT_MOST; held in memory piece by piece only."""
    inflater, size = zlib.decompressobj(), 0
    try:
        while not inflater.eof and size <= INFLATED_AT_MOST:
            piece = inflater.decompress(stored, SYNC_BYTES)
            stored = inflater.unconsumed_tail
            if not piece and not stored:
                break
            size += len(piece)
    except zlib.error:
        return False
    return inflater.eof and not inflater.unused_data and size <= INFLATED_AT_MOST


def _bytes_of(entry: KeptEntry) -> tuple[bytes, bytes, bytes, bytes]:
    # A folder's name need not be UTF-8.
    return entry.collection.encode(errors="surrogateescape"), entry.key, entry.stored, entry.attachment


def _record(seed: int, entry: KeptEntry) -> bytes:
    parts, kind = _bytes_of(entry), _PACKED if entry.packed else _PLAIN
    head = _HEAD.pack(kind, *map(len, parts), min(entry.uses, _MOST_USES), entry.seconds_left)
    content = b"".join((head, *parts))
    return _CHECKSUM.pack(zlib.crc32(content, seed)) + content


def _parts(record: _Record) -> list[bytes]:
    ends = accumulate(record.lengths)
    return [record.body[end - length : end] for end, length in zip(ends, record.lengths, strict=True)]
