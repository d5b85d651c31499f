"""The indexes of all served collections as one component of the ledger, mapped or loaded as the plan says.

Covers: moving every collection between its two forms while queries run, inside the component's ceiling and the room.
Does not cover resident pages of the mapped form (`index_component`) nor other generations (`index_reload`).

A collection is loaded beside its mapped form, which answers meanwhile; its bytes are set aside first. What finds no
room stays mapped, and is told. While an index is loaded its bytes are in the signal and set aside as well: that much
room counts twice for the time of the loading.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from membudget_contract.control_api import Budgets
from membudget_contract.profiles import INDEX
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection, open_generation
from membudget_engine.errors import EngineError
from membudget_engine.index.faiss_reader import loaded_bytes
from membudget_engine.index.generations import verify_generation
from membudget_engine.index.loaded import LoadedIndex
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.index_component import IndexComponent
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.ledger import Ledger

DRAIN_SECONDS: Final = 5.0
"""Waited for queries on a form that was left, so that its memory is gone when the budgets are acknowledged."""

log = logging.getLogger(__name__)


class ServedIndexes(IndexComponent):
    """Bytes of the catalog's indexes. `anonymous_bytes` is what opening them mapped added to the heap."""

    def __init__(self, catalog: Catalog, ledger: Ledger, anonymous_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(catalog.mapped, anonymous_bytes, clock)
        self.changing = threading.RLock()
        """Held by whoever exchanges collections."""
        self.catalog = catalog
        self._ledger = ledger
        self._mapped_wanted = True

    def owned_bytes(self) -> int:
        """Heap bytes of the mapped ones, and the loaded ones whole."""
        return super().owned_bytes() + self.catalog.loaded_bytes()

    def apply(self, budgets: Budgets) -> str | None:
        """Bring every index into the form the plan asks for, where it fits."""
        with self.changing:
            self._mapped_wanted = budgets.index_mapped
            return self.settle()

    def settle(self) -> str | None:
        """As `apply`, after collections or the ceiling changed; why an index is not as asked, None when all are."""
        with self.changing:
            problems = [self._settled(collection) for collection in self.catalog.collections.values()]
        return next((problem for problem in problems if problem is not None), None)

    def _settled(self, collection: Collection) -> str | None:
        loaded = [isinstance(index, LoadedIndex) for index in collection.indexes]
        try:
            if self._mapped_wanted:
                if any(loaded):
                    self._map(collection)
            elif not all(loaded):
                self._load(collection)
            elif over := self._over_ceiling():
                self._map(collection)
                return f"{collection.name} is mapped again: loaded indexes are {over} bytes over the ceiling"
        except (NoRoom, ValueTooLarge) as error:
            return f"{collection.name} stays mapped: {error}"
        except (EngineError, OSError) as error:
            form = "loaded" if all(loaded) else "mapped"
            return f"{collection.name} stays {form}: {error}"
        return None

    def _over_ceiling(self) -> int:
        ceiling = self._ledger.ceiling(INDEX)
        return 0 if ceiling is None else max(0, self.owned_bytes() - ceiling)

    def _load(self, collection: Collection) -> None:
        generation = collection.generation
        mapped = [one for one in collection.segments if not isinstance(one.index, LoadedIndex)]
        byte_count = sum(loaded_bytes(one.folder.manifest) for one in mapped)
        if self._ledger.bounds.counts_mapped():
            # Its pages are of no more use, and count against the same ceiling.
            self.page_out(byte_count)
        self._ledger.set_aside(INDEX, byte_count, self._ledger.bounds.ranking.priority(collection.name))
        try:
            verify_generation(generation.directory, generation.manifest)
            opened = open_generation(collection.name, generation, LoadedIndex, collection)
        except BaseException:
            self._ledger.return_reserved(INDEX, byte_count)
            raise
        with self._ledger.lock:
            before = self.catalog.exchange(replace(opened, overlay=collection.overlay))
            self._ledger.return_reserved(INDEX, byte_count)
        if before is not None:
            self.catalog.retire(before)
        log.info("%s is served from %d bytes of anonymous memory", collection.name, byte_count)

    def _map(self, collection: Collection) -> None:
        generation = collection.generation
        verify_generation(generation.directory, generation.manifest)
        opened = open_generation(collection.name, generation, MappedIndex, collection)
        before = self.catalog.exchange(replace(opened, overlay=collection.overlay))
        if before is not None:
            self.catalog.retire(before)
            before.closed.wait(DRAIN_SECONDS)
        self._ledger.trim()
        log.info("%s is served mapped", collection.name)
