"""A cache bounded in bytes: admits, evicts and spills by the priority of collections.

Covers: look-up, time to live, compression, exact owned bytes, eviction of one class down to a byte target, spill
to disk and back. Does not cover similarity (`membudget_engine.caches`) or when to act (`reclaim`, the sidecar).
Values lie in an arena, only keys and places on the heap.

Order of eviction inside one class: the least recently used entry over all collections of the class goes first; the
whole order and its reasons: docs/eviction-order.md.
"""

from __future__ import annotations

import heapq
import sys
import zlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from membudget_contract.control_api import Budgets
from membudget_contract.policy import DEFAULT_COLLECTION, Priority
from membudget_runtime.arena import SEGMENT_BYTES, Extent, SegmentArena, page_bytes
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.errors import NoRoom, SpillDamaged, SpillFailed, ValueTooLarge
from membudget_runtime.ledger import Ledger
from membudget_runtime.replacement import LeastRecentlyUsed
from membudget_runtime.spill import BATCH_BYTES, SpillPlace, SpillStore

ENTRY_BYTES: Final = 402
"""Heap bytes of one entry beside its value: entry, extent, numbers, key of 16 bytes, its share of the tables; 382 to
422 by how full the tables are. Measured from outside by tests/runtime/test_cache_bytes.py (Python 3.11, x86-64).

Not counted yet: a table from which as much left as came in may have twice the slots of one that was only filled, up to
85 bytes more an entry. That shows with values of a few bytes; the room, read from the signal, holds it either way."""

COMPRESS_FROM: Final = 1024
COMPRESS_WORTH: Final = 0.8
"""Compress values over 1 kB, and keep the compressed form only when it saves more than 20 % (R-E02)."""

DEAD_SHARE: Final = 0.1
"""Of the arena: below it an eviction rather drops one entry more than move values together, which costs ten times
the bytes it gains."""

EXPIRE_STEP: Final = 1000
"""Entries dropped under one hold of the lock: 3 ms."""

Key = TypeVar("Key", bound=Hashable)


class _Entry(Generic[Key]):
    __slots__ = ("collection", "expires_at", "key", "packed", "place", "used_at")

    def __init__(self, key: Key, collection: str, place: Extent, packed: bool, now: float, expires_at: float) -> None:
        self.key = key
        self.collection = collection
        self.place: Extent | SpillPlace = place
        self.packed = packed
        self.used_at = now
        self.expires_at = expires_at


@dataclass(slots=True)
class CacheCounters:
    """What happened since the start."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0
    compressions: int = 0
    spills: int = 0
    loads: int = 0
    damaged: int = 0
    refused: int = 0


class BoundedCache(Component, Generic[Key]):
    """Values by (collection, key). Thread-safe.

    `entry_bytes` is what one entry costs beside its value: the heap's share and whatever the owner keeps for it;
    `on_removed` hears of every entry that left for good, under the ledger's lock.
    """

    def __init__(  # noqa: PLR0913  each is a decision of the owner
        self,
        name: str,
        ledger: Ledger,
        *,
        ttl_seconds: float,
        clock: Callable[[], float],
        spill: SpillStore | None = None,
        compression: bool = True,
        extra_entry_bytes: int = 0,
        on_removed: Callable[[str, Key], None] = lambda _collection, _key: None,
    ) -> None:
        super().__init__(name)
        self.compression = compression
        self.counters = CacheCounters()
        self._ledger = ledger
        self._ttl = ttl_seconds
        self._clock = clock
        self._spill = spill
        self._entry_bytes = ENTRY_BYTES + extra_entry_bytes
        self._on_removed = on_removed
        self._arena = SegmentArena()
        self._tables: dict[str, LeastRecentlyUsed[Key, _Entry[Key]]] = {}
        self._count = 0
        self._spilled = 0
        self._returning: _Entry[Key] | None = None
        """On its way back from disk: room for it must not be made by dropping it."""
        ledger.register(self)

    def __len__(self) -> int:
        return self._count

    def get(self, collection: str, key: Key) -> bytes | None:
        """The value, from memory or disk; None when it is not there, is past its time, or was damaged on disk."""
        with self._ledger.lock:
            entry = self._use(collection, key)
            if entry is None:
                self.counters.misses += 1
                return None
            place = entry.place
            stored = b""
            if isinstance(place, Extent):
                self.counters.hits += 1
                stored = self._arena.read(place)
        if isinstance(place, SpillPlace):
            return self._load(entry, place)
        return zlib.decompress(stored) if entry.packed else stored

    def holds(self, collection: str, key: Key) -> bool:
        """Whether an entry is kept under this key; no use is counted. The caller holds the ledger's lock."""
        return self._peek(collection, key) is not None

    def put(self, key: Key, value: bytes, collection: str = DEFAULT_COLLECTION) -> bool:
        """Keep a value; an older one under the same key is replaced. False when there is no room for it."""
        stored = _deflated(value) if self.compression else value
        with self._ledger.lock:
            older = self._peek(collection, key)
            if older is not None:
                self._remove(older)
            return self._take(key, collection, stored, packed=stored is not value, seconds=self._ttl)

    def clear(self) -> int:
        """Drop every entry; returns how many."""
        with self._ledger.lock:
            entries = [entry for table in self._tables.values() for entry in table]
            for entry in entries:
                self._remove(entry)
            self._arena.clear()
            return len(entries)

    def drop(self, collection: str) -> int:
        """Drop every entry of one collection, some at a time; returns how many."""
        with self._ledger.lock:
            table = self._tables.get(collection)
            entries = list(table) if table is not None else []
        return self._drop_still_kept(entries).entries

    def saved(self: BoundedCache[bytes], priority: Priority) -> Iterator[KeptEntry]:
        """The entries of one class for `entry_file`, last used first, those on disk too."""
        with self._ledger.lock:
            ranking = self._ledger.bounds.ranking
            tables = [table for name, table in self._tables.items() if ranking.priority(name) is priority]
            entries = list(heapq.merge(*tables, key=lambda entry: entry.used_at))
        for entry in reversed(entries):
            stored = self._stored(entry)
            if stored is not None:
                left = entry.expires_at - self._clock()
                yield KeptEntry(entry.collection, entry.key, stored, packed=entry.packed, seconds_left=left)

    def restore(self: BoundedCache[bytes], kept: KeptEntry) -> bool:
        """Take an entry of an earlier life; False when it is late, there is a newer one, or no room."""
        with self._ledger.lock:
            if kept.seconds_left <= 0 or self._peek(kept.collection, kept.key) is not None:
                return False
            return self._take(kept.key, kept.collection, kept.stored, packed=kept.packed, seconds=kept.seconds_left)

    def owned_bytes(self) -> int:
        """Resident bytes of the arena, and what entries cost on the heap."""
        arena = self._arena
        return arena.resident_bytes + arena.dead_extent_bytes + self._count * self._entry_bytes

    def spare_bytes(self) -> int:
        """Resident bytes of the arena that hold nothing."""
        return self._arena.resident_bytes - self._arena.held_bytes

    def give_back_spare(self) -> None:
        """Unmap them."""
        self._arena.give_back_spare()

    def spilled_bytes(self) -> int:
        """Bytes of this cache's values on disk."""
        return self._spilled

    def collections(self) -> list[CollectionUse]:
        """Live bytes by collection; pages that are spare or that compaction would free are in none of them."""
        return [CollectionUse(name, len(table), table.byte_count) for name, table in self._tables.items()]

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Drop least recently used entries of one class until at least `target_bytes` are freed."""
        removed = Removed()
        owned, before = self.owned_bytes(), self._used_bytes()
        goal = before - target_bytes
        victims = self._victims(priority, ranking)
        while self._used_bytes() > goal:
            if self._is_sparse() and self._arena.move_sparsest():
                continue
            entry = next(victims, None)
            if entry is None:
                break
            removed.count(entry.collection, self._cost(entry))
            self._remove(entry)
        self.counters.evictions += removed.entries
        self._stay_within(owned)
        removed.freed_bytes = before - self._used_bytes()
        return removed

    def spill(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Write least recently used entries of one class to disk, batch by batch."""
        removed = Removed()
        if self._spill is None:
            return removed
        while removed.freed_bytes < target_bytes and removed.problem is None:
            # Less than a segment would be a file for a few values, and might free nothing.
            wanted = min(BATCH_BYTES, max(SEGMENT_BYTES, target_bytes - removed.freed_bytes))
            with self._ledger.lock:
                batch = self._batch(wanted, priority, ranking)
            if not batch:
                break
            removed.add(self._spill_batch(self._spill, batch))
        return removed

    def expire(self) -> Removed:
        """Drop entries past their time to live."""
        with self._ledger.lock:
            now = self._clock()
            late = [entry for table in self._tables.values() for entry in table if entry.expires_at <= now]
        removed = self._drop_still_kept(late)
        self.counters.expirations += removed.entries
        return removed

    def evictions(self) -> int:
        """Entries evicted since start."""
        return self.counters.evictions

    def apply(self, budgets: Budgets) -> str | None:
        """Take over compression and the bound of the spill folder."""
        self.compression = budgets.cache_compression
        if self._spill is not None:
            self._spill.max_bytes = budgets.spill_max_bytes
        return None

    def _drop_still_kept(self, entries: list[_Entry[Key]]) -> Removed:
        """Drop these, as far as they are kept still, some under each hold of the lock."""
        removed = Removed()
        for start in range(0, len(entries), EXPIRE_STEP):
            with self._ledger.lock:
                before = self._used_bytes()
                for entry in entries[start : start + EXPIRE_STEP]:
                    if self._peek(entry.collection, entry.key) is entry:
                        removed.count(entry.collection, self._cost(entry))
                        self._remove(entry)
                self._move_together()
                removed.freed_bytes += before - self._used_bytes()
        return removed

    def _take(self, key: Key, collection: str, stored: bytes, *, packed: bool, seconds: float) -> bool:
        """Admit and add; the lock is held."""
        try:
            self._ledger.admit(self, page_bytes(len(stored)) + self._entry_bytes, self._priority(collection))
        except (NoRoom, ValueTooLarge):
            self.counters.refused += 1
            return False
        self._add(key, collection, stored, packed=packed, seconds=seconds)
        # Admission counts what is spare as free, but the entry's bytes on the heap came on top of it.
        self._stay_within(self._ledger.limit(self))
        return True

    def _stored(self, entry: _Entry[Key]) -> bytes | None:
        """The entry's value as it is kept, from memory or disk; None when it has gone meanwhile."""
        with self._ledger.lock:
            place = entry.place if self._peek(entry.collection, entry.key) is entry else None
            if isinstance(place, Extent):
                return self._arena.read(place)
        if place is None or self._spill is None:
            return None
        try:
            return self._spill.read(place)
        except SpillDamaged:
            return None

    def _priority(self, collection: str) -> Priority:
        return self._ledger.bounds.ranking.priority(collection)

    def _used_bytes(self) -> int:
        return self._arena.held_bytes + self._arena.dead_extent_bytes + self._count * self._entry_bytes

    def _is_sparse(self) -> bool:
        """True when so much of the arena is dead that moving values together pays, and more than one segment."""
        dead = self._arena.held_bytes - self._arena.live_bytes
        return dead > SEGMENT_BYTES and dead > DEAD_SHARE * self._arena.held_bytes

    def _move_together(self) -> None:
        owned = self.owned_bytes()
        while self._is_sparse() and self._arena.move_sparsest():
            pass
        self._stay_within(owned)

    def _stay_within(self, owned_bytes: int | None) -> None:
        """Give up what is spare rather than own more; a move maps a segment before it empties another."""
        if owned_bytes is not None and self.owned_bytes() > owned_bytes:
            self._arena.give_back_spare()

    def _peek(self, collection: str, key: Key) -> _Entry[Key] | None:
        table = self._tables.get(collection)
        return None if table is None else table.peek(key)

    def _add(self, key: Key, collection: str, stored: bytes, *, packed: bool, seconds: float) -> None:
        now = self._clock()
        # Interned: a name parsed anew from each request would cost every entry a string of its own.
        name = sys.intern(collection)
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = LeastRecentlyUsed()
        entry = _Entry(key, name, self._arena.store(stored), packed, now, now + seconds)
        table.add(key, entry)
        table.byte_count += len(stored) + self._entry_bytes
        self._count += 1
        self.counters.compressions += packed

    def _use(self, collection: str, key: Key) -> _Entry[Key] | None:
        table = self._tables.get(collection)
        entry = table.use(key) if table else None
        if entry is None:
            return None
        now = self._clock()
        if entry.expires_at <= now:
            self._remove(entry)
            self.counters.expirations += 1
            return None
        entry.used_at = now
        return entry

    def _cost(self, entry: _Entry[Key]) -> int:
        """Bytes of memory the entry's going gives back."""
        in_memory = entry.place.length if isinstance(entry.place, Extent) else 0
        return in_memory + self._entry_bytes

    def _victims(self, priority: Priority, ranking: Ranking) -> Iterator[_Entry[Key]]:
        """Entries of one class, least recently used first over its collections; each must go before the next."""
        tables = (table for name, table in self._tables.items() if ranking.may_evict(name, priority))
        heads = [(table.first().used_at, number, table) for number, table in enumerate(tables)]
        heapq.heapify(heads)
        while heads:
            _, number, table = heads[0]
            entry = table.first()
            if entry is not self._returning:
                yield entry
            if len(table) and table.first() is not entry:
                heapq.heapreplace(heads, (table.first().used_at, number, table))
            else:
                heapq.heappop(heads)

    def _remove(self, entry: _Entry[Key]) -> None:
        table = self._tables[entry.collection]
        table.remove(entry.key)
        table.byte_count -= self._cost(entry)
        if not len(table):
            del self._tables[entry.collection]
        self._release(entry.place)
        self._count -= 1
        self._on_removed(entry.collection, entry.key)

    def _release(self, place: Extent | SpillPlace) -> None:
        if isinstance(place, Extent):
            self._arena.release(place)
            return
        assert self._spill is not None
        self._spilled -= place.length
        self._spill.release(place)

    def _batch(
        self, wanted_bytes: int, priority: Priority, ranking: Ranking
    ) -> list[tuple[_Entry[Key], Extent, bytes]]:
        """Entries of one class that lie in memory, least recently used first, with copies of their values."""
        tables = [table for name, table in self._tables.items() if ranking.may_evict(name, priority)]
        batch: list[tuple[_Entry[Key], Extent, bytes]] = []
        gathered = 0
        for entry in heapq.merge(*tables, key=lambda entry: entry.used_at):
            if gathered >= wanted_bytes:
                break
            if isinstance(entry.place, Extent):
                batch.append((entry, entry.place, self._arena.read(entry.place)))
                gathered += entry.place.length
        return batch

    def _spill_batch(self, store: SpillStore, batch: list[tuple[_Entry[Key], Extent, bytes]]) -> Removed:
        removed = Removed()
        try:
            places = store.write([value for _, _, value in batch])
        except SpillFailed as error:
            removed.problem = str(error)
            return removed
        with self._ledger.lock:
            before = self._used_bytes()
            for (entry, extent, _), place in zip(batch, places, strict=True):
                if entry.place is not extent or extent.segment is None:
                    store.release(place)  # replaced or evicted while the disk was busy
                    continue
                self._arena.release(extent)
                entry.place = place
                self._tables[entry.collection].byte_count -= place.length
                self._spilled += place.length
                removed.count(entry.collection, place.length)
            self.counters.spills += removed.entries
            self._move_together()
            removed.freed_bytes = before - self._used_bytes()
        return removed

    def _load(self, entry: _Entry[Key], place: SpillPlace) -> bytes | None:
        """A spilled value, read without the lock; it moves back to memory where there is room."""
        assert self._spill is not None
        try:
            stored = self._spill.read(place)
        except SpillDamaged:
            with self._ledger.lock:
                if self._lies_at(entry, place):
                    self._remove(entry)
                    self.counters.damaged += 1
                    self.counters.misses += 1
                    return None
            # Another thread brought it back or replaced it, and its file went: look again.
            return self.get(entry.collection, entry.key)
        with self._ledger.lock:
            self.counters.loads += 1
            self.counters.hits += 1
            self._bring_back(entry, place, stored)
        return zlib.decompress(stored) if entry.packed else stored

    def _bring_back(self, entry: _Entry[Key], place: SpillPlace, stored: bytes) -> None:
        if not self._lies_at(entry, place):
            return
        self._returning = entry
        try:
            self._ledger.admit(self, page_bytes(len(stored)), self._priority(entry.collection))
        except (NoRoom, ValueTooLarge):
            return  # it stays on disk and is served from there
        finally:
            self._returning = None
        self._release(place)
        entry.place = self._arena.store(stored)
        self._tables[entry.collection].byte_count += len(stored)

    def _lies_at(self, entry: _Entry[Key], place: SpillPlace) -> bool:
        return entry.place is place and self._peek(entry.collection, entry.key) is entry


def _deflated(value: bytes) -> bytes:
    """The value compressed, or itself where that saves too little."""
    if len(value) > COMPRESS_FROM:
        packed = zlib.compress(value, 1)
        if len(packed) < COMPRESS_WORTH * len(value):
            return packed
    return value
