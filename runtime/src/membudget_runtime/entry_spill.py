"""A cache's values on disk: out of memory batch by batch, and back on use.

Covers: which values go, what a full or damaged disk does to them, coming back where there is room. Does not cover files
and checksums (`spill`) nor when to spill (`reclaim`). Disks are waited for without the ledger's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from typing import Generic, TypeVar

from membudget_contract.policy import Priority
from membudget_runtime.arena import SEGMENT_BYTES, page_bytes
from membudget_runtime.cache_counters import CacheCounters
from membudget_runtime.component import Component, Ranking, Removed
from membudget_runtime.entry import SPILLED_BYTES, Entry
from membudget_runtime.errors import NoRoom, SpillDamaged, SpillFailed, SpillUnread, ValueTooLarge
from membudget_runtime.kept_entries import KeptEntries
from membudget_runtime.ledger import Ledger
from membudget_runtime.packing import unpacked_from_disk
from membudget_runtime.replacement import Replacement
from membudget_runtime.spill import BATCH_BYTES, SpillPlace, SpillStore

Key = TypeVar("Key", bound=Hashable)


class EntrySpill(Generic[Key]):
    """Between one cache's memory and one store."""

    def __init__(
        self, cache: Component, kept: KeptEntries[Key], ledger: Ledger, store: SpillStore, counters: CacheCounters
    ) -> None:
        self.store = store
        self._cache = cache
        self._kept = kept
        self._ledger = ledger
        self._counters = counters

    def spill(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Write the least valuable entries of one class to disk, batch by batch."""
        removed = Removed()
        with self._ledger.lock:
            self._kept.rank_as(ranking)
            order = self._kept.orders.evictable(priority)
        if order is None:
            return removed
        copies = self._copies(order)
        while removed.freed_bytes < target_bytes and removed.problem is None:
            # Less than a segment would be a file for a few values, and might free nothing.
            batch = _up_to(copies, min(BATCH_BYTES, max(SEGMENT_BYTES, target_bytes - removed.freed_bytes)))
            if not batch:
                break
            removed.add(self._spill_batch(batch, priority))
        return removed

    def load(
        self, entry: Entry[Key], place: SpillPlace, look_again: Callable[[str, Key], bytes | None]
    ) -> bytes | None:
        """A spilled value; it moves back to memory where there is room."""
        try:
            stored = self.store.read(place)
            value = unpacked_from_disk(stored) if entry.packed else stored
        except SpillUnread:
            self._counters.misses += 1
            return None
        except SpillDamaged:
            with self._ledger.lock:
                if self._lies_at(entry, place):
                    self._kept.remove(entry)
                    self._counters.damaged += 1
                    self._counters.misses += 1
                    return None
            # Another thread brought it back or replaced it, and its file went.
            return look_again(entry.collection, entry.key)
        with self._ledger.lock:
            self._counters.loads += 1
            self._counters.hits += 1
            self._bring_back(entry, place, stored)
        return value

    def _copies(self, order: Replacement[Key]) -> Iterator[tuple[Entry[Key], bytes]]:
        """Entries of this order that lie in memory, least valuable first, with copies of their values."""
        for entry in chain.from_iterable(self._ledger.lock.each(order.steps())):
            if entry.segment is not None and entry.length > SPILLED_BYTES:
                copy = self._copy(entry, order)
                if copy is not None:
                    yield entry, copy

    def _copy(self, entry: Entry[Key], order: Replacement[Key]) -> bytes | None:
        """The value, where it lies in memory and is of this class still: since its step was taken others have run."""
        with self._ledger.lock:
            stays = entry.segment is not None and self._kept.tables[entry.collection].order is order
            return self._kept.arena.read(entry) if stays else None

    def _spill_batch(self, batch: list[tuple[Entry[Key], bytes]], priority: Priority) -> Removed:
        removed, kept = Removed(), self._kept
        try:
            places = self.store.write([value for _, value in batch])
        except SpillFailed as error:
            removed.problem = str(error)
            return removed
        with self._ledger.lock:
            before = kept.used_bytes()
            for (entry, _), place in zip(batch, places, strict=True):
                if entry.segment is None:
                    self.store.release(place)  # replaced or evicted while the disk was busy
                    continue
                entry.spilled = place
                kept.arena.release(entry)
                kept.tables[entry.collection].byte_count += SPILLED_BYTES - place.length
                kept.heap_bytes += SPILLED_BYTES
                kept.spilled_bytes += place.length
                removed.count(entry.collection, place.length)
            self._counters.spills += removed.entries
            kept.move_together()
            # Places on disk cost heap, and values that left memory free none before enough of them did.
            over = self._ledger.over_limit_bytes(self._cache)
            if over:
                self._cache.evict(over, priority, self._ledger.bounds.ranking)
            removed.freed_bytes = before - kept.used_bytes()
        return removed

    def _bring_back(self, entry: Entry[Key], place: SpillPlace, stored: bytes) -> None:
        if not self._lies_at(entry, place):
            return
        kept, ranking = self._kept, self._ledger.bounds.ranking
        kept.rank_as(ranking)
        order = kept.tables[entry.collection].order
        order.remove(entry)  # room for it must not be made by dropping it
        try:
            self._ledger.admit(self._cache, page_bytes(len(stored)), ranking.priority(entry.collection))
            kept.arena.store_again(entry, stored)
        except (NoRoom, ValueTooLarge, MemoryError):
            return  # it stays on disk and is served from there
        else:
            kept.leave_disk(entry)
            kept.tables[entry.collection].byte_count += len(stored) - SPILLED_BYTES
        finally:
            kept.tables[entry.collection].order.add(entry)

    def _lies_at(self, entry: Entry[Key], place: SpillPlace) -> bool:
        return entry.spilled is place and self._kept.find(entry.collection, entry.key) is entry


def _up_to(copies: Iterator[tuple[Entry[Key], bytes]], wanted_bytes: int) -> list[tuple[Entry[Key], bytes]]:
    """The next of them, until they are so many bytes or there are no more."""
    batch: list[tuple[Entry[Key], bytes]] = []
    gathered = 0
    while gathered < wanted_bytes and (copied := next(copies, None)) is not None:
        batch.append(copied)
        gathered += len(copied[1])
    return batch
