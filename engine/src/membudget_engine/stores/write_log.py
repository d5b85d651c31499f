"""Covers the writes of one collection in one SQLite file: the truth about whatever no generation has yet.

It does not cover vectors held for searching (index/delta) nor when writes are sealed into a generation (writer).

A write that `append` returned from survives SIGKILL and power loss: WAL with synchronous = FULL syncs each commit. One
row for each id, its newest write; numbers only grow, also past rows that are gone. What the fallback generation lacks
stays in the log, so that a damaged newest generation loses nothing.
"""

import os
import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, cast

import msgspec
import numpy as np

from membudget_contract.decoding import decode_msgpack
from membudget_engine.embedder import Vectors
from membudget_engine.errors import WriteFailed, WriteLogInvalid
from membudget_engine.ingest.chunk import Chunk

LOG_FILE: Final = "writes.sqlite"
SCHEMA_VERSION: Final = 1

_APPLICATION_ID: Final = 0x6D656D77  # "memw"
_PAGE_BYTES: Final = 16384
"""As the chunk store: vectors of 512 places take 1.15 times their bytes, in pages of 4 kB twice."""
_CACHE_KIB: Final = 512
_CHECKPOINT_PAGES: Final = 256
"""4 MB of log before the log, before it is taken into the file."""
_READ_AT_ONCE: Final = 256
_READ_BYTES_AT_ONCE: Final = 1024 * 1024
"""And the write that ends them, however many those are: one write over HTTP has as much."""

_SCHEMA = """CREATE TABLE writes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, chunk BLOB, vector BLOB) STRICT"""
_SOME = """SELECT sequence, id, chunk, vector FROM writes WHERE sequence > ? AND sequence <= ?
    ORDER BY sequence LIMIT ?"""
_HOW_MANY = "SELECT count(*) FROM writes WHERE sequence > ? AND sequence <= ? AND vector IS NOT NULL"
_INSERT = "INSERT OR REPLACE INTO writes (id, chunk, vector) VALUES (?, ?, ?)"

_Row = tuple[int, str, bytes | None, bytes | None]
"""Of `_SOME`."""


class Write(NamedTuple):
    """One chunk with its vector; without a chunk it deletes the id."""

    id: str
    chunk: Chunk | None = None
    vector: Vectors | None = None


class Logged(NamedTuple):
    """A write and its number."""

    sequence: int
    write: Write


class WriteLog:
    """Every method may be called from any thread."""

    def __init__(self, folder: Path, dimension: int, sealed: int) -> None:
        """Opens the log of a collection's folder; makes it when there is none, its numbers following `sealed`.

        Raises:
            WriteLogInvalid: it is damaged, foreign or of another version.
            WriteFailed: the volume is full, read-only or failing.
        """
        self._file = folder / LOG_FILE
        self._dimension = dimension
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self.new = False
        """Whether it was made now: there was none, or one without its own log that has everything."""
        with self._typed():
            self._writer = _connected(self._file)
            self._reader = self._writer
            try:
                self._check(sealed)
                self._reader = _connected(self._file)
                self.sequence = self._last()
            except BaseException:
                self.close()
                raise
        if self.new:
            _sync_folder(folder)

    def append(self, writes: Sequence[Write]) -> range:
        """Makes these writes hold, all or none, and gives their numbers. Raises WriteFailed: none of them holds."""
        with self._writing, self._typed():
            self._do("BEGIN IMMEDIATE")
            try:
                for write in writes:
                    self._do(_INSERT, (write.id, _packed(write.chunk), _bytes_of(write.vector)))
                last = self._last()
                self._do("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._do("ROLLBACK")
                raise
            self.sequence = last
        return range(last - len(writes) + 1, last + 1)

    def after(self, sequence: int, through: int | None = None) -> Iterator[Logged]:
        """The writes with numbers over the first and up to the second, in order; in memory is a megabyte at a time.

        A write that a newer one of its id replaces meanwhile is left out.
        """
        last = self.sequence if through is None else through
        while True:
            batch = self._some(sequence, last)
            for number, chunk_id, chunk, vector in batch:
                sequence = number
                yield Logged(number, Write(chunk_id, self._unpacked(chunk), self._vector(vector)))
            if not batch:
                return

    def count(self, sequence: int, through: int) -> int:
        """How many of the writes with numbers over the first and up to the second are chunks, not deletions."""
        return cast("list[tuple[int]]", self._rows(_HOW_MANY, (sequence, through)))[0][0]

    def chunks(self, ids: Iterable[str]) -> dict[str, Chunk]:
        """The chunks of these ids as last written; deleted and unknown ones are left out."""
        found: dict[str, Chunk] = {}
        for chunk_id in ids:
            for (packed,) in self._rows("SELECT chunk FROM writes WHERE id = ?", (chunk_id,)):
                chunk = self._unpacked(cast("bytes | None", packed))
                if chunk is not None:
                    found[chunk_id] = chunk
        return found

    def purge(self, through: int) -> None:
        """Forgets writes up to this number: two generations hold them. Raises WriteFailed."""
        with self._writing, self._typed():
            self._do("DELETE FROM writes WHERE sequence <= ?", (through,))

    def close(self) -> None:
        """Ends it; may be called twice."""
        self._reader.close()
        self._writer.close()

    def _check(self, sealed: int) -> None:
        identity = self._number("PRAGMA application_id"), self._number("PRAGMA user_version")
        if identity == (0, 0) and self._number("SELECT count(*) FROM sqlite_schema") == 0:
            # In one transaction: a log is whole or is none.
            self._do("BEGIN IMMEDIATE")
            self._do(_SCHEMA)
            self._do("INSERT INTO sqlite_sequence (name, seq) VALUES ('writes', ?)", (sealed,))
            self._do(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._do(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._do("COMMIT")
            self.new = True
            return
        if identity != (_APPLICATION_ID, SCHEMA_VERSION):
            raise WriteLogInvalid(f"{self._file} is no log of writes of version {SCHEMA_VERSION} (found {identity})")
        if self._rows("PRAGMA quick_check(1)", ()) != [("ok",)]:
            raise WriteLogInvalid(f"{self._file} is damaged: restore it; the generation beside it is good")

    def _last(self) -> int:
        return self._number("SELECT coalesce(max(seq), 0) FROM sqlite_sequence")

    def _number(self, statement: str) -> int:
        with closing(self._writer.execute(statement)) as cursor:
            return cast("tuple[int]", cursor.fetchone())[0]

    def _rows(self, statement: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        with self._reading, self._typed(), closing(self._reader.execute(statement, values)) as cursor:
            return cursor.fetchall()

    def _some(self, sequence: int, last: int) -> list[_Row]:
        batch, held = list[_Row](), 0
        values = (sequence, last, _READ_AT_ONCE)
        with self._reading, self._typed(), closing(self._reader.execute(_SOME, values)) as cursor:
            for row in cast("Iterator[_Row]", cursor):
                batch.append(row)
                held += sum(len(stored) for stored in row[2:] if stored is not None)
                if held >= _READ_BYTES_AT_ONCE:
                    break
        return batch

    def _do(self, statement: str, values: Sequence[object] = ()) -> None:
        with closing(self._writer.execute(statement, values)):
            pass

    def _unpacked(self, packed: bytes | None) -> Chunk | None:
        try:
            return None if packed is None else decode_msgpack(packed, Chunk)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WriteLogInvalid(f"{self._file}: {error}; restore it") from error

    def _vector(self, stored: bytes | None) -> Vectors | None:
        if stored is None:
            return None
        if len(stored) != self._dimension * np.dtype(np.float32).itemsize:
            raise WriteLogInvalid(f"{self._file} has a vector of {len(stored)} bytes, not of {self._dimension} places")
        return np.frombuffer(stored, dtype=np.float32)

    @contextmanager
    def _typed(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.InternalError) as error:
            raise WriteFailed(f"{self._file}: {error}; is the volume full or read-only?") from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # Python decodes what SQLite says, which quotes damaged names as they are.
            raise WriteLogInvalid(f"{self._file}: {error}; restore it") from error


def _connected(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        for setting in (
            f"page_size = {_PAGE_BYTES}",
            "journal_mode = WAL",
            "synchronous = FULL",
            f"cache_size = -{_CACHE_KIB}",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            f"journal_size_limit = {_CHECKPOINT_PAGES * _PAGE_BYTES}",
        ):
            with closing(connection.execute(f"PRAGMA {setting}")):
                pass
    except BaseException:
        connection.close()
        raise
    return connection


def _packed(chunk: Chunk | None) -> bytes | None:
    return None if chunk is None else msgspec.msgpack.encode(chunk)


def _bytes_of(vector: Vectors | None) -> bytes | None:
    return None if vector is None else np.ascontiguousarray(vector, dtype=np.float32).tobytes()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
