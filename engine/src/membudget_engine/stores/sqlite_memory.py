"""What SQLite holds in this process, as one component of the ledger: page caches and connections of every store.

Covers: exact bytes as SQLite's own allocator counts them, a ceiling as its soft heap limit, idle connections that give
their page caches back. Does not cover what is read (`chunk_store`, `database_chunks`, `write_log`).

The count is of the whole process: a store needs no entry here to be in it. Only those that `idle` names can be asked to
give back, and nothing of it is lost: the kernel's page cache is behind it.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Final, Protocol

from membudget_contract.control_api import Budgets
from membudget_contract.policy import DEFAULT_COLLECTION, Priority
from membudget_runtime.component import Component, Ranking, Removed

SQLITE: Final = "sqlite"


# Python's own extension is linked with the library it uses: a symbol asked of the one is found in the other.
_memory_used: Final = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
_memory_used.restype = ctypes.c_int64


class Idle(Protocol):
    """A store whose connections that nobody uses now can give back what they cached."""

    def shrink(self) -> None:
        """Give it back. From any thread; a store that was closed does nothing."""
        ...


class SqliteMemory(Component):
    """Registers with a runtime as any component; `close` takes the limit away."""

    def __init__(self, idle: Callable[[], Iterable[Idle]]) -> None:
        """`idle` names the stores to ask."""
        super().__init__(SQLITE)
        self._idle = idle
        self._limited = False

    def owned_bytes(self) -> int:
        """Of all connections of the process."""
        return sqlite_bytes()

    def apply(self, budgets: Budgets) -> str | None:
        """Over its ceiling SQLite uses the pages it has again rather than ask for more."""
        ceiling = budgets.components.get(SQLITE)
        if ceiling is not None or self._limited:
            self._limited = ceiling is not None
            # 0 takes it away.
            _set_soft_heap_limit(ceiling or 0)
        return None

    def expire(self) -> Removed:
        """A cached page costs a read of the kernel's at most."""
        return self._shrunk()

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """All that idle connections cached, or nothing: pages belong to no collection."""
        if target_bytes <= 0 or not ranking.may_evict(DEFAULT_COLLECTION, priority):
            return Removed()
        return self._shrunk()

    def close(self) -> None:
        """Take the limit away."""
        if self._limited:
            _set_soft_heap_limit(0)

    def _shrunk(self) -> Removed:
        before = self.owned_bytes()
        for store in self._idle():
            store.shrink()
        return Removed(freed_bytes=max(0, before - self.owned_bytes()))


def sqlite_bytes() -> int:
    """What SQLite has allocated in this process and not freed."""
    return int(_memory_used())


def _set_soft_heap_limit(byte_count: int) -> None:
    """Of the process, whichever connection says it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA soft_heap_limit = {byte_count}")
