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

CACHE_KIB = 128
"""SQLite's page cache of one connection: 8 pages of 16 kB. The kernel's page cache is behind it."""


class ReadOnlyPool:
    """Opens connections when needed, hands each to one thread at a time, and keeps them until close().

    Where the file has lost its name, as that of a generation that was replaced, those that are open serve on.
    """

    def __init__(self, file: Path, *, sealed: bool = True, cache_kib: int = CACHE_KIB) -> None:
        """A file that is not `sealed` may have one writer beside these readers."""
        self._file = file
        # as_uri escapes ? and #. immutable: no locks, no journal is looked for; a sealed file never changes.
        self._uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if sealed else ''}"
        self._cache_kib = cache_kib
        self._free_slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Condition()
        self._opened = 0
        """Idle ones and those in use."""
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
            self._lock.notify_all()
        for connection in idle:
            connection.close()

    def shrink(self) -> None:
        """Connections that nobody uses now give their page caches back; they stay open."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            try:
                connection.execute("PRAGMA shrink_memory").close()
            finally:
                self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        idle = self._idle_one()
        if idle is not None:
            return idle
        try:
            connection = self._connected()
        except sqlite3.OperationalError:
            if not self._opened:
                raise
            with self._lock:
                self._lock.wait_for(lambda: self._idle or self._closed)
            return self._take()
        with self._lock:
            self._opened += 1
        return connection

    def _idle_one(self) -> sqlite3.Connection | None:
        with self._lock:
            if self._closed:
                raise ChunkStoreClosed(f"{self._file} was closed: ask the collection for its present store")
            return self._idle.pop() if self._idle else None

    def _connected(self) -> sqlite3.Connection:
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
                self._lock.notify()
                return
        connection.close()
