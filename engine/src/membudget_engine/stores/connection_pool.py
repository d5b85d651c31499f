"""Covers a bounded pool of read-only SQLite connections to one file.

It does not cover what is read (chunk_store, database_chunks) nor writing: a sealed file has no writer.
"""

import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from membudget_engine.errors import ChunkStoreClosed

MAX_CONNECTIONS = 4
"""One for each query worker; each holds up to CACHE_KIB of pages."""

CACHE_KIB = 512
"""SQLite's page cache of one connection: 32 pages of 16 kB. The kernel's page cache is behind it."""


class ReadOnlyPool:
    """Opens connections when needed, hands each to one thread at a time, and keeps them until close()."""

    def __init__(self, file: Path, *, sealed: bool = True, cache_kib: int = CACHE_KIB) -> None:
        """A file that is not `sealed` may have one writer beside these readers."""
        self._file = file
        # as_uri escapes ? and #. immutable: no locks, no journal is looked for; a sealed file never changes.
        self._uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if sealed else ''}"
        self._cache_kib = cache_kib
        self._free_slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Generator[sqlite3.Connection]:
        """A connection for the length of the with block; waits while all are in use.

        Raises ChunkStoreClosed after close(), sqlite3.Error when the file cannot be opened.
        """
        with self._free_slots:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)

    def close(self) -> None:
        """Closes idle connections now and those in use when they come back. May be called twice."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise ChunkStoreClosed(f"{self._file} was closed: ask the collection for its present store")
            if self._idle:
                return self._idle.pop()
        connection = sqlite3.connect(self._uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            with closing(connection.execute(f"PRAGMA cache_size = -{self._cache_kib}")):
                return connection
        except BaseException:
            connection.close()
            raise

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()
