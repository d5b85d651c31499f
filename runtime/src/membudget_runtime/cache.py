"""A cache bounded in bytes: admits, evicts and spills by the priority of collections.

Covers: look-up, time to live, compression, exact owned bytes, eviction of one class down to a byte target, spill
to disk and back. Does not cover similarity (`membudget_engine.caches`) or when to act (`reclaim`, the sidecar).
Values lie in an arena, only keys and places on the heap.

A hit takes no lock: it changes no bytes, and what it reads is checked afterwards (docs/decisions/0014). Which class
goes first and which entry of it: docs/eviction-order.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

from membudget_contract.control_api import Budgets
from membudget_contract.policy import DEFAULT_COLLECTION, Priority
from membudget_runtime.arena import SEGMENT_BYTES, SegmentArena, page_bytes
from membudget_runtime.cache_counters import CacheCounters
from membudget_runtime.class_orders import ClassOrders
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.entry import SPILLED_BYTES, Entry
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.errors import NoRoom, SpillDamaged, SpillFailed, SpillUnread, ValueTooLarge
from membudget_runtime.ledger import Ledger
from membudget_runtime.packing import packed, unpacked, unpacked_from_disk
from membudget_runtime.replacement import MOST_USES, AdaptiveFifo, Replacement
from membudget_runtime.spill import BATCH_BYTES, SpillPlace, SpillStore
from membudget_runtime.table import Table

ENTRY_BYTES: Final = 290
"""Heap bytes of one entry beside its value and its slot in a table: the record, its numbers, a key of 16 bytes;
275 for values under 256 bytes, 293 to 305 for longer ones, whose length is a number of its own on the heap.
Measured from outside by tests/runtime/test_cache_bytes.py (Python 3.11, x86-64)."""

KEY_BYTES: Final = 64
"""Of them the key's: what `sys.getsizeof` tells of a key beyond this is counted for each entry."""

NEW_TABLE_BYTES: Final = 1024
"""At most what the first entry of a collection costs more: a table, an order with its marks."""

DEAD_SHARE: Final = 0.05
"""Of the arena: below it an eviction rather drops one entry more than move values together, which costs ten times
the bytes it gains."""

EXPIRE_STEP: Final = 1000
"""Entries dropped under one hold of the lock: 3 ms."""

Key = TypeVar("Key", bound=Hashable)


class BoundedCache(Component, Generic[Key]):
    """Values by (collection, key). Thread-safe.

    `extra_entry_bytes` is what the owner keeps on the heap for each entry; `on_removed` hears of every entry that left
    for good, under the ledger's lock; `policy` says which entry of a class goes first.
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
        policy: type[Replacement[Key]] = AdaptiveFifo,
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
        self._reorders = policy.reorders
        self._arena = SegmentArena()
        self._tables: dict[str, Table[Key]] = {}
        self._orders = ClassOrders(policy, ledger.bounds.ranking)
        self._count = 0
        self._heap_bytes = 0
        """Of all entries."""
        self._tables_bytes = 0
        """Of all tables, and of what the orders cost beside the entries."""
        self._spilled = 0
        ledger.register(self)

    def __len__(self) -> int:
        return self._count

    def get(self, collection: str, key: Key) -> bytes | None:
        """The value, from memory or disk; None when it is not there, is past its time, or was damaged on disk."""
        table = self._tables.get(collection)
        entry = None if table is None else table.entries.get(key)
        if entry is None:
            self.counters.misses += 1
            return None
        segment = entry.segment
        if segment is None or entry.expires_at <= self._clock():
            return self._get_locked(collection, key)
        start = entry.offset
        try:
            stored = segment.mapping[start : start + entry.length]
        except ValueError:
            return self._get_locked(collection, key)  # unmapped just now
        if entry.segment is not segment:
            return self._get_locked(collection, key)  # moved or released just now: the bytes may be another's
        if self._reorders:
            self._use(entry)
        elif entry.uses < MOST_USES:
            entry.uses += 1
        self.counters.hits += 1
        return unpacked(stored) if entry.packed else stored

    def holds(self, collection: str, key: Key) -> bool:
        """Whether an entry is kept under this key; no use is counted. The caller holds the ledger's lock."""
        return self._peek(collection, key) is not None

    def put(self, key: Key, value: bytes, collection: str = DEFAULT_COLLECTION) -> bool:
        """Keep a value; an older one under the same key is replaced. False when there is no room for it."""
        stored = packed(value) if self.compression else value
        with self._ledger.lock:
            older = self._peek(collection, key)
            if older is not None:
                self._remove(older)
            return self._take(key, collection, stored, packed=stored is not value, seconds=self._ttl)

    def clear(self) -> int:
        """Drop every entry there is now, some at a time; returns how many."""
        with self._ledger.lock:
            entries = [entry for table in self._tables.values() for entry in table.entries.values()]
        return self._drop_still_kept(entries).entries

    def drop(self, collection: str) -> int:
        """Drop every entry of one collection, some at a time; returns how many."""
        with self._ledger.lock:
            table = self._tables.get(collection)
            entries = list(table.entries.values()) if table is not None else []
        return self._drop_still_kept(entries).entries

    def saved(self: BoundedCache[bytes], priority: Priority) -> Iterator[KeptEntry]:
        """The entries of one class for `entry_file`, the last to go first, those on disk too."""
        with self._ledger.lock:
            self._rank_as(self._ranking_now())
            entries = list(self._orders.of_class(priority))
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
        """Resident bytes of the arena, and what entries and their tables cost on the heap."""
        return self._arena.resident_bytes + self._heap_bytes + self._tables_bytes

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
        """Live bytes by collection; tables, spare pages and those that compaction would free are in none of them."""
        return [CollectionUse(table.name, len(table.entries), table.byte_count) for table in self._tables.values()]

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Drop the least valuable entries of one class until at least `target_bytes` are freed."""
        removed = Removed()
        self._rank_as(ranking)
        order = self._orders.evictable(priority)
        owned, before = self.owned_bytes(), self._used_bytes()
        goal = before - target_bytes
        moving = True
        while self._used_bytes() > goal:
            if moving and self._is_sparse():
                moving = self._arena.move_sparsest()
                continue
            entry = order.pop() if order is not None else None
            if entry is None:
                break
            heap = self._entry_heap_bytes(entry.key)
            removed.count(entry.collection, heap + entry.beside_bytes())
            self._forget(entry, heap)
        self.counters.evictions += removed.entries
        self._measure_tables()
        self._stay_within(owned)
        removed.freed_bytes = before - self._used_bytes()
        return removed

    def spill(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Write the least valuable entries of one class to disk, batch by batch."""
        removed = Removed()
        if self._spill is None:
            return removed
        while removed.freed_bytes < target_bytes and removed.problem is None:
            # Less than a segment would be a file for a few values, and might free nothing.
            wanted = min(BATCH_BYTES, max(SEGMENT_BYTES, target_bytes - removed.freed_bytes))
            with self._ledger.lock:
                self._rank_as(ranking)
                batch = self._batch(wanted, priority)
            if not batch:
                break
            removed.add(self._spill_batch(self._spill, batch))
        return removed

    def expire(self) -> Removed:
        """Drop entries past their time to live."""
        with self._ledger.lock:
            now = self._clock()
            tables = self._tables.values()
            late = [entry for table in tables for entry in table.entries.values() if entry.expires_at <= now]
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

    def _get_locked(self, collection: str, key: Key) -> bytes | None:
        """As `get`, where the value is not simply in memory."""
        with self._ledger.lock:
            entry = self._peek(collection, key)
            if entry is not None and entry.expires_at <= self._clock():
                self._remove(entry)
                self.counters.expirations += 1
                entry = None
            if entry is None:
                self.counters.misses += 1
                return None
            self._use(entry)
            place = entry.spilled
            stored = b""
            if place is None:
                self.counters.hits += 1
                stored = self._arena.read(entry)
        if place is not None:
            return self._load(entry, place)
        return unpacked(stored) if entry.packed else stored

    def _use(self, entry: Entry[Key]) -> None:
        if not self._reorders:
            entry.uses = min(MOST_USES, entry.uses + 1)
            return
        with self._ledger.lock:
            if entry.queue is not None:
                self._tables[entry.collection].order.use(entry)

    def _drop_still_kept(self, entries: list[Entry[Key]]) -> Removed:
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
        table, ledger = self._tables.get(collection), self._ledger
        growth = NEW_TABLE_BYTES if table is None else table.growth_bytes()
        needed = page_bytes(len(stored)) + self._entry_heap_bytes(key) + growth
        if not ledger.spend(self, needed):
            try:
                ledger.admit(self, needed, self._ranking_now().priority(collection))
            except (NoRoom, ValueTooLarge):
                self.counters.refused += 1
                return False
        self._add(key, collection, stored, packed=packed, seconds=seconds)
        # Admission counts what is spare as free, but the entry's bytes on the heap came on top of it.
        self._stay_within(ledger.limit(self))
        return True

    def _stored(self, entry: Entry[Key]) -> bytes | None:
        """The entry's value as it is kept, from memory or disk; None when it has gone meanwhile."""
        with self._ledger.lock:
            if self._peek(entry.collection, entry.key) is not entry:
                return None
            place = entry.spilled
            if place is None:
                return self._arena.read(entry)
        if self._spill is None:
            return None
        try:
            return self._spill.read(place)
        except (SpillDamaged, SpillUnread):
            return None

    def _ranking_now(self) -> Ranking:
        return self._ledger.bounds.ranking

    def _used_bytes(self) -> int:
        return self._arena.held_bytes + self._heap_bytes + self._tables_bytes

    def _is_sparse(self) -> bool:
        """True when so much of the arena is dead that moving values together pays, and more than one segment."""
        dead = self._arena.held_bytes - self._arena.live_bytes
        return dead > SEGMENT_BYTES and dead > DEAD_SHARE * self._arena.held_bytes

    def _move_together(self) -> None:
        owned = self.owned_bytes()
        while self._is_sparse() and self._arena.move_sparsest():
            pass
        self._measure_tables()
        self._stay_within(owned)

    def _measure_tables(self) -> None:
        """Let tables give empty slots back, and count what they and the orders cost now."""
        for table in self._tables.values():
            table.shrink()
        self._tables_bytes = sum(table.table_bytes for table in self._tables.values())
        self._tables_bytes += self._orders.extra_bytes()

    def _stay_within(self, owned_bytes: int | None) -> None:
        """Give up what is spare rather than own more; a move maps a segment before it empties another."""
        if owned_bytes is not None:
            self._arena.shrink_spare(owned_bytes - self._heap_bytes - self._tables_bytes)

    def _peek(self, collection: str, key: Key) -> Entry[Key] | None:
        table = self._tables.get(collection)
        return None if table is None else table.entries.get(key)

    def _add(self, key: Key, collection: str, stored: bytes, *, packed: bool, seconds: float) -> None:
        table = self._tables.get(collection) or self._new_table(collection)
        entry = Entry(key, table.name, packed=packed, expires_at=self._clock() + seconds)
        self._arena.store(entry, stored)
        self._tables_bytes += table.add(entry)
        table.order.add(entry)
        heap = self._entry_heap_bytes(key)
        table.byte_count += len(stored) + heap
        self._heap_bytes += heap
        self._count += 1
        self.counters.compressions += packed

    def _new_table(self, collection: str) -> Table[Key]:
        # Interned: a name parsed anew from each request would cost every entry a string of its own.
        name = sys.intern(collection)
        self._rank_as(self._ranking_now())
        table = self._tables[name] = Table(name, self._orders.of(name))
        self._measure_tables()
        return table

    def _rank_as(self, ranking: Ranking) -> None:
        self._orders.rank_as(ranking, self._tables)

    def _cost(self, entry: Entry[Key]) -> int:
        """Bytes of memory the entry's going gives back."""
        return self._entry_heap_bytes(entry.key) + entry.beside_bytes()

    def _entry_heap_bytes(self, key: Key) -> int:
        beyond = sys.getsizeof(key) - KEY_BYTES
        return self._entry_bytes + beyond if beyond > 0 else self._entry_bytes

    def _remove(self, entry: Entry[Key]) -> None:
        self._tables[entry.collection].order.remove(entry)
        self._forget(entry, self._entry_heap_bytes(entry.key))

    def _forget(self, entry: Entry[Key], heap_bytes: int) -> None:
        """The entry, which stands in no order any more and costs that much on the heap, leaves for good."""
        table = self._tables[entry.collection]
        table.remove(entry)
        table.byte_count -= heap_bytes + entry.beside_bytes()
        if not table.entries:
            del self._tables[entry.collection]
            self._tables_bytes -= table.table_bytes
        if entry.spilled is None:
            self._arena.release(entry)
        else:
            self._unspill(entry, entry.spilled)
        self._heap_bytes -= heap_bytes
        self._count -= 1
        if not self._count:
            self._orders.clear()
            self._tables_bytes = 0
        self._on_removed(entry.collection, entry.key)

    def _unspill(self, entry: Entry[Key], place: SpillPlace) -> None:
        assert self._spill is not None
        entry.spilled = None
        self._heap_bytes -= SPILLED_BYTES
        self._spilled -= place.length
        self._spill.release(place)

    def _batch(self, wanted_bytes: int, priority: Priority) -> list[tuple[Entry[Key], bytes]]:
        """Entries of one class that lie in memory, least valuable first, with copies of their values."""
        batch: list[tuple[Entry[Key], bytes]] = []
        gathered = 0
        for entry in self._orders.evictable(priority) or ():
            if gathered >= wanted_bytes:
                break
            if entry.segment is not None and entry.length > SPILLED_BYTES:
                batch.append((entry, self._arena.read(entry)))
                gathered += entry.length
        return batch

    def _spill_batch(self, store: SpillStore, batch: list[tuple[Entry[Key], bytes]]) -> Removed:
        removed = Removed()
        try:
            places = store.write([value for _, value in batch])
        except SpillFailed as error:
            removed.problem = str(error)
            return removed
        with self._ledger.lock:
            before = self._used_bytes()
            for (entry, _), place in zip(batch, places, strict=True):
                if entry.segment is None:
                    store.release(place)  # replaced or evicted while the disk was busy
                    continue
                entry.spilled = place
                self._arena.release(entry)
                self._tables[entry.collection].byte_count += SPILLED_BYTES - place.length
                self._heap_bytes += SPILLED_BYTES
                self._spilled += place.length
                removed.count(entry.collection, place.length)
            self.counters.spills += removed.entries
            self._move_together()
            removed.freed_bytes = before - self._used_bytes()
        return removed

    def _load(self, entry: Entry[Key], place: SpillPlace) -> bytes | None:
        """A spilled value, read without the lock; it moves back to memory where there is room."""
        assert self._spill is not None
        try:
            stored = self._spill.read(place)
            value = unpacked_from_disk(stored) if entry.packed else stored
        except SpillUnread:
            self.counters.misses += 1
            return None
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
        return value

    def _bring_back(self, entry: Entry[Key], place: SpillPlace, stored: bytes) -> None:
        if not self._lies_at(entry, place):
            return
        self._rank_as(self._ranking_now())
        order = self._tables[entry.collection].order
        order.remove(entry)  # room for it must not be made by dropping it
        try:
            self._ledger.admit(self, page_bytes(len(stored)), self._ranking_now().priority(entry.collection))
        except (NoRoom, ValueTooLarge):
            return  # it stays on disk and is served from there
        else:
            self._arena.store(entry, stored)
            self._unspill(entry, place)
            self._tables[entry.collection].byte_count += len(stored) - SPILLED_BYTES
        finally:
            self._tables[entry.collection].order.add(entry)

    def _lies_at(self, entry: Entry[Key], place: SpillPlace) -> bool:
        return entry.spilled is place and self._peek(entry.collection, entry.key) is entry
