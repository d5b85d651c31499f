"""Code chunks in one SQLite file: nearly no memory, and there again after a restart.

Covers: a store that is bounded by number, written by one connection and read by at most four. Does not cover the record
(`code_chunk`) nor the sealed store of a generation (`chunk_store`). WAL with synchronous = FULL: what `save` returned
from survives SIGKILL and power loss.

A chunk that is saved again keeps its row: an upsert, not a replacement, so that its activation stays. Which chunk was
used when is gathered in memory and written down, a thousand uses in one transaction: a look-up writes nothing. Uses
that were not written down before a crash are forgotten; chunks are not.

Its memory is SQLite's: `sqlite_memory.SqliteMemory` counts it in the ledger with that of every other connection, and
asks the stores it is told of to `shrink`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, cast

import msgspec

from membudget_engine.errors import ChunkStoreClosed, ChunkStoreInvalid
from membudget_engine.stores.code_chunk import CodeChunk, packed_text, unpacked_chunk
from membudget_engine.stores.connection_pool import ReadOnlyPool

SCHEMA_VERSION: Final = 1
CACHE_KIB: Final = 128
"""SQLite's page cache of each connection; the kernel's is behind it."""
USES: Final = 1024
"""Written down at once: 0.1 MB of ids at most."""
JOURNAL_BYTES: Final = 4 * 1024 * 1024
"""To which the write-ahead log is cut after each checkpoint."""

_APPLICATION_ID: Final = 0x6D656D63  # "memc"
_PAGE_BYTES: Final = 4096
_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS chunks (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, text BLOB NOT NULL, activation REAL NOT NULL, used INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID"""
_USED: Final = "CREATE INDEX IF NOT EXISTS by_use ON chunks (used)"
_SAVE: Final = """INSERT INTO chunks (id, path, text, activation, used) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET path = excluded.path, text = excluded.text, used = excluded.used"""
_GET: Final = "SELECT path, text, activation FROM chunks WHERE id = ?"
_USE: Final = "UPDATE chunks SET used = ? WHERE id = ?"
_ACTIVATE: Final = "UPDATE chunks SET activation = ? WHERE id = ?"
_DELETE: Final = "DELETE FROM chunks WHERE id = ?"
_EVICT: Final = "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks ORDER BY used LIMIT ?)"
_BROKEN: Final = (sqlite3.Error, msgspec.DecodeError, UnicodeEncodeError)


class DatabaseChunkStore:
    """Chunks by id. Thread-safe; one store per file at a time."""

    def __init__(self, file: Path, max_chunks: int | None = None) -> None:
        """Open the file, or make it. `max_chunks` None: the disk alone bounds it.

        Raises:
            ChunkStoreInvalid: it is no store of this version, is damaged, or cannot be written.
        """
        self._file = file
        self._max = max_chunks
        self._lock = threading.RLock()
        """Over the writing connection and what is gathered for it."""
        self._uses: dict[str, int] = {}
        self._closed = False
        try:
            self._writer = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ChunkStoreInvalid(f"{file}: {error}") from error
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._writer.close()
            raise
        self._readers = ReadOnlyPool(file, sealed=False, cache_kib=CACHE_KIB)

    def __len__(self) -> int:
        with self._lock, self._translated():
            return self._number("SELECT count(*) FROM chunks")

    def save(self, chunks: Iterable[CodeChunk]) -> None:
        """Keep all of these or none; one that is kept already gets the new text, and keeps its activation.

        Above the maximum the least recently used go.

        Raises:
            ChunkStoreInvalid: the disk did not take them.
            ChunkStoreClosed: after `close`.
        """
        packed = ((c.id, c.path, packed_text(c), c.activation) for c in chunks)
        with self._lock, self._translated(), self._transaction():
            self._write_uses()
            for row in packed:
                self._clock += 1
                self._execute(_SAVE, (*row, self._clock))
            if self._max is not None:
                over = self._number("SELECT count(*) FROM chunks") - self._max
                if over > 0:
                    self._execute(_EVICT, (over,))

    def get(self, chunk_id: str) -> CodeChunk | None:
        """The chunk, used now; None when there is none. Raises ChunkStoreInvalid, ChunkStoreClosed."""
        try:
            with self._readers.connection() as connection:
                found = cast("tuple[str, bytes, float] | None", connection.execute(_GET, (chunk_id,)).fetchone())
            if found is None:
                return None
            if self._max is not None:
                self._use(chunk_id)
            path, text, activation = found
            return unpacked_chunk(chunk_id, path, text, activation)
        except _BROKEN as error:
            raise ChunkStoreInvalid(f"{self._file}: {error}") from error

    def activate(self, chunk_id: str, activation: float) -> bool:
        """Set its activation; whether it is there. Raises ChunkStoreInvalid, ChunkStoreClosed."""
        with self._lock, self._translated():
            return self._execute(_ACTIVATE, (activation, chunk_id)) > 0

    def delete(self, chunk_id: str) -> bool:
        """Forget it; whether it was there. Raises ChunkStoreInvalid, ChunkStoreClosed."""
        with self._lock, self._translated():
            return self._execute(_DELETE, (chunk_id,)) > 0

    def shrink(self) -> None:
        """Give back what idle connections and the writer's cached; nothing after `close`."""
        self._readers.shrink()
        with self._lock:
            if not self._closed:
                self._writer.execute("PRAGMA shrink_memory").close()

    def close(self) -> None:
        """Write uses down, take the log into the file, close every connection. May be called twice."""
        with self._lock:
            if self._closed:
                return
            try:
                with self._translated(), self._transaction():
                    self._write_uses()
            finally:
                self._closed = True
                self._readers.close()
                self._writer.close()

    def _prepare(self) -> None:
        """Tell a store of ours from any other file, and make it one when it is new."""
        self._execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        found = (self._number("PRAGMA application_id"), self._number("PRAGMA user_version"))
        new = found == (0, 0) and not self._number("SELECT count(*) FROM sqlite_schema")
        if not new and found != (_APPLICATION_ID, SCHEMA_VERSION):
            raise ChunkStoreInvalid(f"{self._file} is no chunk store of version {SCHEMA_VERSION} (found {found})")
        for setting in (f"page_size = {_PAGE_BYTES}", "journal_mode = WAL", "synchronous = FULL"):
            self._execute(f"PRAGMA {setting}")
        self._execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        with self._transaction():
            self._execute(_SCHEMA)
            self._execute(_USED)
            self._execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._clock = self._number("SELECT coalesce(max(used), 0) FROM chunks")

    def _use(self, chunk_id: str) -> None:
        with self._lock:
            self._clock += 1
            self._uses[chunk_id] = self._clock
            if len(self._uses) >= USES and not self._closed:
                with self._transaction():
                    self._write_uses()

    def _write_uses(self) -> None:
        for chunk_id, used in self._uses.items():
            self._execute(_USE, (used, chunk_id))
        self._uses = {}

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except _BROKEN as error:
            raise ChunkStoreInvalid(f"{self._file}: {error}") from error

    def _execute(self, statement: str, values: Sequence[object] = ()) -> int:
        self._refuse_closed()
        with closing(self._writer.execute(statement, values)) as cursor:
            return cursor.rowcount

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ChunkStoreClosed(f"{self._file} was closed")

    def _number(self, statement: str) -> int:
        self._refuse_closed()
        with closing(self._writer.execute(statement)) as cursor:
            return cast("tuple[int]", cursor.fetchone())[0]
