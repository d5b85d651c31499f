"""A cache bounded in bytes: admits, evicts and spills by the priority of collections.

Covers: look-up, time to live, compression, admission of each value, dropping by collection or age. Does not cover what
is kept and its bytes (`kept_entries`), disk (`entry_spill`), similarity (`membudget_engine.caches`) or when to act
(`reclaim`, the sidecar). Values lie in an arena, only keys and places on the heap.

A hit takes no lock: it changes no bytes, and what it reads is checked afterwards (docs/decisions/0014). Which class
goes first and which entry of it: docs/eviction-order.md.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from membudget_contract.control_api import Budgets
from membudget_contract.policy import DEFAULT_COLLECTION, Priority
from membudget_runtime.cache_counters import CacheCounters
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.entry import DROP_ENTRIES, Entry
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.entry_spill import EntrySpill
from membudget_runtime.errors import NoRoom, SpillDamaged, SpillUnread, ValueTooLarge
from membudget_runtime.kept_entries import ENTRY_BYTES, KeptEntries
from membudget_runtime.ledger import Ledger
from membudget_runtime.packing import packed, unpacked
from membudget_runtime.replacement import MOST_USES, AdaptiveFifo, Replacement
from membudget_runtime.spill import SpillPlace, SpillStore

Key = TypeVar("Key", bound=Hashable)


class KeptState(NamedTuple):
    """Of an entry, at the moment it was asked for."""

    kept: bool
    on_disk: bool


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
        self._reorders = policy.reorders
        self._none_late_before = math.inf
        """No entry is past its time yet then: most look-ups need not look at the entry's own, far away in memory."""
        self._none_new_late_before = math.inf
        """The same of those that came since the last expiry began."""
        self._expiries = 0
        self._kept: KeptEntries[Key] = KeptEntries(
            policy,
            ledger.bounds.ranking,
            entry_bytes=ENTRY_BYTES + extra_entry_bytes,
            store=spill,
            on_removed=on_removed,
        )
        self._tables = self._kept.tables
        self._disk = None if spill is None else EntrySpill(self, self._kept, ledger, spill, self.counters)
        ledger.register(self)

    def __len__(self) -> int:
        return self._kept.count

    def get(self, collection: str, key: Key) -> bytes | None:
        """The value, from memory or disk; None when it is not there, is past its time, or was damaged on disk."""
        table = self._tables.get(collection)
        entry = None if table is None else table.entries.get(key)
        if entry is None:
            self.counters.misses += 1
            return None
        segment, clock = entry.segment, self._clock
        now = clock()  # called as a method, what the instance holds would be looked for in the class first
        if segment is None or (self._none_late_before <= now and entry.expires_at <= now):
            return self._get_locked(collection, key)
        start = entry.offset
        try:
            stored = segment.mapping[start : start + entry.length]
        except ValueError:
            return self._get_locked(collection, key)  # unmapped just now
        if entry.segment is not segment or entry.offset != start:
            return self._get_locked(collection, key)  # moved or released just now: the bytes may be another's
        if self._reorders:
            self._use(entry)
        elif entry.uses < MOST_USES:
            entry.uses += 1
        self.counters.hits += 1
        return unpacked(stored) if entry.packed else stored

    def peek(self, collection: str, key: Key) -> bytes | None:
        """The value where it is in memory; neither a use nor a miss is counted."""
        with self._ledger.lock:
            entry = self._kept.find(collection, key)
            if entry is None or entry.segment is None or entry.expires_at <= self._clock():
                return None
            stored = self._kept.arena.read(entry)
        return unpacked(stored) if entry.packed else stored

    def state(self, collection: str, key: Key) -> KeptState:
        """Whether an entry is kept, and whether `get` would read it from disk; takes no lock, and no use is counted."""
        table = self._tables.get(collection)
        entry = None if table is None else table.entries.get(key)
        return KeptState(entry is not None, entry is not None and entry.segment is None)

    def holds(self, collection: str, key: Key) -> bool:
        """Whether an entry is kept under this key; no use is counted. The caller holds the ledger's lock."""
        return self._kept.find(collection, key) is not None

    def put(self, key: Key, value: bytes, collection: str = DEFAULT_COLLECTION) -> bool:
        """Keep a value; an older one under the same key is replaced. False when there is no room for it."""
        stored = packed(value) if self.compression else value
        with self._ledger.lock:
            older = self._kept.find(collection, key)
            if older is not None:
                self._kept.remove(older)
            return self._take(key, collection, stored, packed=stored is not value, seconds=self._ttl)

    def clear(self) -> int:
        """Drop one collection after the other; returns how many entries. What comes to one dropped before stays."""
        with self._ledger.lock:
            names = list(self._tables)
        return sum(map(self.drop, names))

    def drop(self, collection: str) -> int:
        """Drop every entry of one collection; returns how many.

        None is found from the first moment on; their bytes come free some at a time, the lock free in between. What is
        put meanwhile stays.
        """
        dropped = sum(self._ledger.lock.each(self._kept.drop(collection)))
        self._move_together()
        return dropped

    def saved(self: BoundedCache[bytes], priority: Priority) -> Iterator[KeptEntry]:
        """The entries of one class for `entry_file`, the last to go first, those on disk too.

        One that was moved while its class was walked may come twice: it is taken back once.

        Raises:
            SpillUnread: after all others, where some cannot be read from disk just now.
        """
        lock, unread = self._ledger.lock, 0
        with lock:
            self._kept.rank_as(self._ledger.bounds.ranking)
        entries = list(chain.from_iterable(lock.each(self._kept.orders.steps_of_class(priority))))
        for entry in reversed(entries):
            try:
                stored = self._stored(entry)
            except SpillUnread:
                unread += 1
                continue
            if stored is not None:
                left = entry.expires_at - self._clock()
                yield KeptEntry(
                    entry.collection,
                    entry.key,
                    stored,
                    packed=entry.packed,
                    seconds_left=left,
                    uses=self._uses(entry),
                )
        if unread:
            raise SpillUnread(f"{unread} values on disk cannot be read now")

    def restore(self: BoundedCache[bytes], kept: KeptEntry) -> bool:
        """Take an entry of an earlier life; False when it is late, there is a newer one, or no room."""
        with self._ledger.lock:
            if kept.seconds_left <= 0 or self._kept.find(kept.collection, kept.key) is not None:
                return False
            return self._take(
                kept.key, kept.collection, kept.stored, packed=kept.packed, seconds=kept.seconds_left, uses=kept.uses
            )

    def owned_bytes(self) -> int:
        """Resident bytes of the arena, and what entries and their tables cost on the heap."""
        return self._kept.owned_bytes()

    def used_bytes(self) -> int:
        """The same without the pages of the arena that hold nothing."""
        return self._kept.used_bytes()

    def give_back_spare(self) -> None:
        """Unmap those."""
        self._kept.arena.give_back_spare()

    def spilled_bytes(self) -> int:
        """Bytes of this cache's values on disk."""
        return self._kept.spilled_bytes

    def collections(self) -> list[CollectionUse]:
        """Live bytes by collection; tables, spare pages and those that compaction would free are in none of them."""
        return [CollectionUse(table.name, len(table.entries), table.byte_count) for table in self._tables.values()]

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Drop the least valuable entries of one class until at least `target_bytes` are freed."""
        self._kept.rank_as(ranking)
        removed = self._kept.evict(target_bytes, priority)
        self.counters.evictions += removed.entries
        return removed

    def gives(self, priority: Priority) -> bool:
        """Whether it keeps an entry of this class that may go."""
        self._kept.rank_as(self._ledger.bounds.ranking)
        return bool(self._kept.orders.evictable(priority))

    def spill(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Write the least valuable entries of one class to disk, batch by batch."""
        return Removed() if self._disk is None else self._disk.spill(target_bytes, priority, ranking)

    def expire(self) -> Removed:
        """Drop entries past their time to live."""
        with self._ledger.lock:
            self._none_new_late_before = math.inf
            self._expiries += 1
            this = self._expiries
        now, next_late = self._clock(), math.inf
        late: list[Entry[Key]] = []
        for entry in self._walked():
            if entry.expires_at <= now:
                late.append(entry)
            else:
                next_late = min(next_late, entry.expires_at)
        removed = self._drop_still_kept(late)
        self.counters.expirations += removed.entries
        with self._ledger.lock:
            if this == self._expiries:  # else another one began meanwhile, and knows what came since
                self._none_late_before = min(next_late, self._none_new_late_before)
        return removed

    def evictions(self) -> int:
        """Entries evicted since start."""
        return self.counters.evictions

    def apply(self, budgets: Budgets) -> str | None:
        """Take over compression and the bound of the spill folder."""
        self.compression = budgets.cache_compression
        if self._disk is not None:
            self._disk.store.max_bytes = budgets.spill_max_bytes
        return None

    def _get_locked(self, collection: str, key: Key) -> bytes | None:
        """As `get`, where the value is not simply in memory."""
        with self._ledger.lock:
            entry = self._kept.find(collection, key)
            if entry is not None and entry.expires_at <= self._clock():
                self._kept.remove(entry)
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
                stored = self._kept.arena.read(entry)
        if place is not None:
            assert self._disk is not None, "somebody spilled it"
            return self._disk.load(entry, place, self.get)
        return unpacked(stored) if entry.packed else stored

    def _use(self, entry: Entry[Key]) -> None:
        if not self._reorders:
            entry.uses = min(MOST_USES, entry.uses + 1)
            return
        with self._ledger.lock:
            if entry.queue is not None:
                self._tables[entry.collection].order.use(entry)

    def _walked(self) -> Iterator[Entry[Key]]:
        """Every entry there is now, and maybe some that come or go meanwhile; the lock is free between two steps."""
        return chain.from_iterable(self._ledger.lock.each(self._kept.orders.steps()))

    def _drop_still_kept(self, entries: list[Entry[Key]]) -> Removed:
        """Drop these, as far as they are kept still, some under each hold of the lock."""
        removed, kept = Removed(), self._kept
        while entries:
            step = entries[-DROP_ENTRIES:]
            del entries[-DROP_ENTRIES:]
            with self._ledger.lock:
                before = kept.used_bytes()
                for entry in step:
                    if kept.find(entry.collection, entry.key) is entry:
                        removed.count(entry.collection, kept.cost(entry))
                        kept.remove(entry)
                removed.freed_bytes += before - kept.used_bytes()
        removed.freed_bytes += self._move_together()
        return removed

    def _move_together(self) -> int:
        """As far as it pays, some values under each hold of the lock; by how much less is held then."""
        return sum(self._ledger.lock.each(self._moves()))

    def _moves(self) -> Iterator[int]:
        kept, ledger = self._kept, self._ledger
        owned, before = kept.owned_bytes(), kept.used_bytes()
        for in_two_places in kept.moves():
            kept.stay_within(owned)
            if in_two_places and (ledger.over_limit_bytes(self) > 0 or ledger.over_bytes() > 0):
                continue  # what is held twice finds no room
            yield before - kept.used_bytes()
            owned, before = kept.owned_bytes(), kept.used_bytes()
        kept.measure_tables()
        yield before - kept.used_bytes()

    def _take(self, key: Key, collection: str, stored: bytes, *, packed: bool, seconds: float, uses: int = 0) -> bool:
        """Admit and add; the lock is held."""
        kept, ledger = self._kept, self._ledger
        kept.rank_as(ledger.bounds.ranking)
        kept.remove_hidden(collection, key)
        heap = kept.heap_bytes_of(key)
        needed = kept.needed_bytes(collection, heap, len(stored))
        if not ledger.spend(self, needed) and not self._admit(collection, heap, len(stored), needed):
            self.counters.refused += 1
            return False
        table = self._tables.get(collection)
        # Interned: a name parsed anew from each request would cost every entry a string of its own.
        name = sys.intern(collection) if table is None else table.name
        expires_at = self._clock() + seconds
        self._none_late_before = min(self._none_late_before, expires_at)
        self._none_new_late_before = min(self._none_new_late_before, expires_at)
        try:
            kept.add(Entry(key, name, packed=packed, expires_at=expires_at), stored, heap, uses)
        except MemoryError:  # a guard of the process is nearer than the bounds
            self.counters.refused += 1
            return False
        self.counters.compressions += packed
        if kept.arena.resident_bytes > kept.arena.held_bytes:
            # Admission counts what is spare as free, but the entry's bytes on the heap came on top of it.
            kept.stay_within(ledger.limit(self))
        return True

    def _admit(self, collection: str, heap_bytes: int, length: int, needed: int) -> bool:
        """Make room, in the places of the least valuable where theirs fit; False when there is none."""
        kept, ledger, ranking = self._kept, self._ledger, self._ledger.bounds.ranking
        priority = ranking.priority(collection)
        first = ledger.goes_first(self, needed, priority)
        if first is not None:
            before = kept.used_bytes()
            self.counters.evictions += kept.replace(length, first)
            ledger.note_change(self, kept.used_bytes() - before)
            needed = kept.needed_bytes(collection, heap_bytes, length)
        try:
            ledger.admit(self, needed, priority)
            moved_together = kept.needed_bytes(collection, heap_bytes, length)
            if moved_together > needed:  # the place that was left for it went as well
                ledger.admit(self, moved_together, priority)
        except (NoRoom, ValueTooLarge):
            return False
        return True

    def _uses(self, entry: Entry[Key]) -> int:
        with self._ledger.lock:
            table = self._tables.get(entry.collection)
            return 0 if table is None else table.order.uses(entry)

    def _stored(self, entry: Entry[Key]) -> bytes | None:
        """The entry's value as it is kept, from memory or disk; None when it has gone meanwhile.

        Raises:
            SpillUnread: not now; it is still there.
        """
        damaged: SpillPlace | None = None
        while True:
            with self._ledger.lock:
                if self._kept.find(entry.collection, entry.key) is not entry:
                    return None
                place = entry.spilled
                if place is None:
                    return self._kept.arena.read(entry)
            if self._disk is None or place is damaged:
                return None
            try:
                return self._disk.store.read(place)
            except SpillDamaged:
                damaged = place  # if it lies there still: a look-up may just have brought it back
