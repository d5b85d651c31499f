"""The collections that are served now, exchanged while queries run.

Covers: which generation a query gets, and closing one when its last query has ended. Does not cover which generation
comes next (`index_reload`) nor whether it is mapped or loaded (`served_indexes`).
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from membudget_engine.collection import Collection
from membudget_engine.errors import CollectionMissing
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.loaded import Index, LoadedIndex, PagedIndex
from membudget_engine.overlay import Overlay
from membudget_engine.write_problems import WriteProblems


class Served:
    """One open generation and how many queries are at it."""

    __slots__ = ("closed", "closing", "collection", "queries", "retired")

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.queries = 0
        self.retired = False
        self.closing = False
        self.closed = threading.Event()


class Catalog:
    """Collections by name. Thread-safe; its lock is held for some assignments only."""

    def __init__(self, collections: Mapping[str, Collection]) -> None:
        self._lock = threading.Lock()
        self._served = {name: Served(collection) for name, collection in collections.items()}
        self._open = tuple(self._served.values())
        """With those that are retired and still in use."""
        self.mapped: list[PagedIndex] = []
        """The indexes with a mapping that are open; changed in place."""
        self.problems = WriteProblems()
        """Told by whoever writes to them."""
        self._list_mapped()

    @property
    def collections(self) -> Mapping[str, Collection]:
        """What a query that comes now would get; for reports, as it may be closed at any moment."""
        with self._lock:
            return {name: served.collection for name, served in self._served.items()}

    @contextmanager
    def use(self, name: str) -> Generator[Collection]:
        """The collection of that name, open until the block ends. Raises CollectionMissing."""
        with self._lock:
            served = self._served.get(name)
            if served is None:
                raise CollectionMissing(f"no collection {name!r}; there are {', '.join(self._served)}")
            served.queries += 1
        try:
            yield served.collection
        finally:
            with self._lock:
                served.queries -= 1
                last = served.retired and not served.queries
            if last:
                self._close(served)

    def exchange(self, collection: Collection) -> Served | None:
        """Serve this one under its name from now on; what was served before is the caller's to `retire`."""
        with self._lock:
            before = self._served.get(collection.name)
            served = Served(collection)
            self._served = {**self._served, collection.name: served}
            self._open = (*self._open, served)
            self._list_mapped()
        return before

    def lay_over(self, name: str, overlay: Overlay) -> None:
        """Serve the same index and chunks of that name with these writes over them. Raises CollectionMissing."""
        with self._lock:
            served = self._served.get(name)
            if served is None:
                raise CollectionMissing(f"no collection {name!r}; there are {', '.join(self._served)}")
            served.collection = replace(served.collection, overlay=overlay)

    def retire(self, served: Served) -> None:
        """Close this one when its last query has ended."""
        with self._lock:
            served.retired = True
            unused = not served.queries
        if unused:
            self._close(served)

    def loaded_bytes(self) -> int:
        """As `anonymous_bytes`, of all generations that are open."""
        return anonymous_bytes([served.collection for served in self._open])

    def close(self) -> None:
        """Close everything, whoever is at it."""
        for served in self._open:
            self._close(served)

    def _close(self, served: Served) -> None:
        with self._lock:
            if served.closing:
                return
            served.closing = True
        served.collection.close()
        with self._lock:
            self._open = tuple(other for other in self._open if other is not served)
            self._list_mapped()
        served.closed.set()

    def _list_mapped(self) -> None:
        opened = [served.collection for served in self._open]
        self.mapped[:] = [index for index in _indexes(opened) if isinstance(index, PagedIndex)]


def anonymous_bytes(collections: Sequence[Collection]) -> int:
    """Anonymous memory of their loaded indexes, of codes of compact ones, and of what was written, to the byte.

    Each counts once, whichever generations share it. What opening a mapped index costs on the heap is not in it: 15 kB
    a segment, with lists 30 kB and 0.25 kB a list, whatever the rows (`tests/engine/test_opening_bytes.py`).
    """
    loaded = [one for one in _indexes(collections) if isinstance(one, LoadedIndex | CompactIndex)]
    deltas = {id(one.overlay): one.overlay.delta for one in collections if one.overlay is not None}
    dead = {id(rows): rows for one in collections for rows in (*one.sealed_dead, *one.dead)}
    return sum(one.owned_bytes for one in (*loaded, *deltas.values(), *dead.values()))


def _indexes(collections: Sequence[Collection]) -> list[Index]:
    """Of all of them, each once."""
    return list({id(index): index for collection in collections for index in collection.indexes}.values())
