"""A cache bounded by its number of entries as well as by bytes: as a whole, and for each collection.

Covers: least recently used order, time to live, exact owned bytes, eviction by class, when values are compressed,
entries across a restart. For rooms of at most some thousand entries, as files and sessions; what is bounded by bytes
alone is a `membudget_runtime.cache.BoundedCache`. Does not cover what the values mean: each room has a module of its
own.

A bound by number asks no leave to evict: the oldest entry gives way to a new one. What may not be evicted (Critical,
excluded, of a higher class) stays, and the new entry is refused. A ceiling in the plan holds in place of the room's own
byte bound. Values lie on the heap: a segment of an arena is larger than most of these rooms.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from membudget_contract.control_api import Budgets
from membudget_contract.policy import EVICTABLE, Priority
from membudget_engine.caches.packed_together import Form, Kept, Name, Packing, Packs, Seen
from membudget_runtime.cache_counters import CacheCounters
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.packing import packed, unpacked

ENTRY_BYTES: Final = 222
"""Heap bytes of one entry beside its value and its slot in the table: the record, its numbers, its name of two parts.
Measured from outside by tests/engine/test_counted_bytes.py (Python 3.11, x86-64)."""

PACKED_AT_ONCE: Final = 1024 * 1024
"""Compressed under one hold of the lock: 10 ms, 20 of what does not compress. What is missing then is dropped."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many entries a room holds, in all and of one collection; None: no bound of that kind."""

    in_all: int
    each: int | None = None
    named: Mapping[str, int] = field(default_factory=dict[str, int])
    """Collections with a number of their own."""

    def of(self, collection: str) -> int:
        """The number for one collection."""
        each = self.in_all if self.each is None else self.each
        return min(self.in_all, self.named.get(collection, each))


class CountingCache(Protocol):
    """What metrics and reports ask of a cache, this one or one bounded by bytes alone."""

    name: str
    counters: CacheCounters

    def __len__(self) -> int: ...

    def owned_bytes(self) -> int:
        """What it holds."""
        ...

    def drop(self, collection: str) -> int:
        """Drop every entry of one collection; how many."""
        ...


class CountedCache(Component):
    """Values by (collection, key), oldest use first. Thread-safe; registers itself with the runtime."""

    def __init__(  # noqa: PLR0913  each is a decision of the room
        self,
        name: str,
        runtime: MemoryRuntime,
        *,
        counts: Counts,
        max_bytes: int,
        ttl_seconds: float,
        use_renews: bool = False,
        packs: Packs = Packs.AT_ONCE,
        counts_of: Callable[[Budgets], Counts] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`use_renews`: the time to live begins again with each use. `counts_of` reads the numbers from a plan."""
        super().__init__(name)
        self.counts = counts
        self.counters = CacheCounters()
        self._ledger = runtime.ledger
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._use_renews = use_renews
        self._packs = packs
        self._counts_of = counts_of
        self._clock = clock
        self._compression = True
        self._kept: dict[Name, Kept] = {}
        self._by_collection: Counter[str] = Counter()
        self._entries_bytes = 0
        """Of all entries, without the table."""
        runtime.register(self)

    def __len__(self) -> int:
        return len(self._kept)

    def entries_of(self, collection: str) -> int:
        """Of one collection."""
        return self._by_collection[collection]

    def get(self, collection: str, key: bytes) -> bytes | None:
        """The value; None when it is not there or past its time."""
        with self._ledger.lock:
            name = (collection, key)
            kept = self._kept.get(name)
            if kept is not None and kept.expires_at <= self._clock():
                self._drop(name)
                self.counters.expirations += 1
                kept = None
            if kept is None:
                self.counters.misses += 1
                return None
            del self._kept[name]
            self._kept[name] = kept
            if self._use_renews:
                kept.expires_at = self._clock() + self._ttl
            self.counters.hits += 1
            if self._packs is Packs.UNUSED:
                self._use(kept)
            stored, form = kept.stored, kept.form
        return unpacked(stored) if form is Form.PACKED else stored

    def put(self, collection: str, key: bytes, value: bytes) -> bool:
        """Keep a value, in place of an older one under this key; False when there is no room for it."""
        stored = packed(value) if self._compression and self._packs is Packs.AT_ONCE else value
        form = Form.USED if stored is value else Form.PACKED
        with self._ledger.lock:
            if (collection, key) in self._kept:
                self._drop((collection, key))
            taken = self._take((collection, key), stored, self._ttl, form)
            self.counters.compressions += taken and form is Form.PACKED
            return taken

    def replace(self, collection: str, key: bytes, value: bytes) -> bool:
        """Keep a value as it is, in place of an older one; False when there is no room for it: that one stays then."""
        name = (sys.intern(collection), key)
        with self._ledger.lock:
            former = self._kept.get(name)
            if former is not None:
                self._drop(name)
            taken = self._take(name, value, self._ttl, Form.USED)
            if former is not None and not taken:
                self._add(name, former)
                self._ledger.note_change(self, self._cost(name))
            return taken

    def pack_unused(self) -> None:
        """Compress what was not used since the former call, where the room does so. The lock is free meanwhile."""
        if self._packs is not Packs.UNUSED:
            return
        with self._ledger.lock:
            unused = [Seen.now(name, kept) for name, kept in self._kept.items() if kept.form is Form.UNUSED]
            for kept in self._kept.values():
                if kept.form is Form.USED:
                    kept.form = Form.UNUSED
        packing = Packing()
        for seen in unused:
            if not self._compression:
                return
            packing.add(seen)
        with self._ledger.lock:
            self._keep_packed(packing)

    def remove(self, collection: str, key: bytes) -> bool:
        """Drop one entry; whether it was there."""
        with self._ledger.lock:
            held = (collection, key) in self._kept
            if held:
                self._drop((collection, key))
            return held

    def clear(self) -> int:
        """Drop every entry; how many."""
        with self._ledger.lock:
            return self._drop_all([*self._kept]).entries

    def drop(self, collection: str) -> int:
        """Drop every entry of one collection; how many."""
        with self._ledger.lock:
            names = [name for name in self._kept if name[0] == collection]
            return self._drop_all(names).entries

    def owned_bytes(self) -> int:
        """What values, their entries and the table cost on the heap."""
        return self._entries_bytes + (sys.getsizeof(self._kept) if self._kept else 0)

    def evictions(self) -> int:
        """Entries that gave way since start, to bytes or to a number."""
        return self.counters.evictions

    def collections(self) -> list[CollectionUse]:
        """Live bytes by collection."""
        byte_counts: Counter[str] = Counter()
        for name in self._kept:
            byte_counts[name[0]] += self._cost(name)
        return [CollectionUse(name, self._by_collection[name], count) for name, count in byte_counts.items()]

    def apply(self, budgets: Budgets) -> str | None:
        """Take over compression, numbers and a ceiling; what is too much now goes, as far as it may."""
        self._compression = budgets.cache_compression
        with self._ledger.lock:
            if self._counts_of is not None:
                self.counts = self._counts_of(budgets)
            for collection, held in [*self._by_collection.items()]:
                self._shed(held - self.counts.of(collection), Priority.HIGH, collection)
            self._shed(len(self._kept) - self.counts.in_all, Priority.HIGH)
            self._come_down(self.owned_bytes() - self._bound_bytes(), Priority.HIGH)
        return None

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Free `target_bytes` of one class, the least recently used first: compressed where it is not, then dropped."""
        names = [name for name in self._kept if ranking.may_evict(name[0], priority)]
        freed = self._pack_first(iter(names), target_bytes)
        removed = self._evict((name for name in names if name in self._kept), target_bytes - freed)
        removed.freed_bytes += freed
        return removed

    def expire(self) -> Removed:
        """Drop entries past their time to live."""
        with self._ledger.lock:
            now = self._clock()
            removed = self._drop_all([name for name, kept in self._kept.items() if kept.expires_at <= now])
        self.counters.expirations += removed.entries
        return removed

    def saved(self, priority: Priority) -> Iterator[KeptEntry]:
        """The entries of one class for the next life, last used first."""
        with self._ledger.lock:
            names = [name for name in self._kept if self._ledger.bounds.ranking.priority(name[0]) is priority]
        for name in reversed(names):
            with self._ledger.lock:
                kept = self._kept.get(name)
                if kept is None:
                    continue
                stored, form = kept.stored, kept.form
            left = kept.expires_at - self._clock()
            yield KeptEntry(*name, stored, packed=form is Form.PACKED, seconds_left=left)

    def restore(self, kept: KeptEntry) -> bool:
        """Take back an entry of an earlier life; False when it is late, there is a newer one, or no room."""
        name = (kept.collection, kept.key)
        with self._ledger.lock:
            if kept.seconds_left <= 0 or name in self._kept:
                return False
            return self._take(name, kept.stored, kept.seconds_left, Form.PACKED if kept.packed else Form.UNUSED)

    def _take(self, name: Name, stored: bytes, seconds: float, form: Form) -> bool:
        collection, key = name
        needed = _entry_bytes(key, stored)
        try:
            self._make_room(collection, needed)
            self._ledger.admit(self, needed, self._ledger.bounds.ranking.priority(collection))
        except (NoRoom, ValueTooLarge):
            self.counters.refused += 1
            return False
        # Interned: a name parsed anew from each request would cost every entry a string of its own.
        self._add((sys.intern(collection), key), Kept(stored, self._clock() + seconds, form))
        return True

    def _add(self, name: Name, kept: Kept) -> None:
        self._kept[name] = kept
        self._by_collection[name[0]] += 1
        self._entries_bytes += self._cost(name)

    def _use(self, kept: Kept) -> None:
        """It is used now, and kept as it is again where it fits so and nothing has to give way for that."""
        if kept.form is Form.UNUSED:
            kept.form = Form.USED
        if kept.form is not Form.PACKED:
            return
        value = unpacked(kept.stored)
        more = sys.getsizeof(value) - sys.getsizeof(kept.stored)
        if self.owned_bytes() + more <= self._bound_bytes() and self._is_admitted_freely(more):
            kept.stored, kept.form = value, Form.USED
            self._entries_bytes += more

    def _is_admitted_freely(self, byte_count: int) -> bool:
        """Whether so many bytes were admitted, for which nothing gave way."""
        return self._ledger.is_free(self, byte_count) and self._ledger.spend(self, byte_count)

    def _pack_first(self, names: Iterator[Name], target_bytes: int) -> int:
        """Compress those first named until `target_bytes` are freed or the lock was held long enough; how many were."""
        packing = Packing()
        if self._packs is Packs.UNUSED and self._compression:
            for name in names:
                if packing.saved_bytes >= target_bytes or packing.tried_bytes >= PACKED_AT_ONCE:
                    break
                kept = self._kept[name]
                if kept.form in {Form.USED, Form.UNUSED}:
                    packing.add(Seen.now(name, kept))
        return self._keep_packed(packing)

    def _keep_packed(self, packing: Packing) -> int:
        """Bytes freed; the lock is held."""
        count, freed, lost = packing.take_place(self._kept)
        self._entries_bytes -= freed
        self._ledger.note_change(self, -freed)
        for name in lost:
            self._drop(name)
        self.counters.compressions += count - len(lost)
        self.counters.evictions += len(lost)
        return freed

    def _make_room(self, collection: str, needed_bytes: int) -> None:
        """For one entry, by number and by bytes.

        Not left to the ledger, which evicts half a megabyte at once: of a small room that is all.
        """
        bound = self._bound_bytes()
        if needed_bytes > bound:
            raise ValueTooLarge(f"{self.name}: {needed_bytes} bytes never fit into {bound}")
        priority = self._ledger.bounds.ranking.priority(collection)
        self._shed(self._by_collection[collection] + 1 - self.counts.of(collection), priority, collection)
        self._shed(len(self._kept) + 1 - self.counts.in_all, priority)
        if not self._takes_one_more(collection):
            raise NoRoom(self.name, needed_bytes, f"{len(self._kept)} entries are held by what may not be evicted")
        if self.owned_bytes() + needed_bytes > bound:
            self._come_down(self.owned_bytes() + needed_bytes - bound, priority)
            if self.owned_bytes() + needed_bytes > bound:
                raise NoRoom(self.name, needed_bytes, "its bytes are held by what may not be evicted")

    def _come_down(self, byte_count: int, up_to: Priority) -> None:
        """Compress what is not, then drop, of these classes."""
        freed = self._pack_first(self._evictable(up_to), byte_count)
        self._evict(iter([*self._evictable(up_to)]), byte_count - freed)

    def _bound_bytes(self) -> int:
        limit = self._ledger.limit(self)
        return self._max_bytes if limit is None else limit

    def _takes_one_more(self, collection: str) -> bool:
        return self._by_collection[collection] < self.counts.of(collection) and len(self._kept) < self.counts.in_all

    def _shed(self, excess: int, up_to: Priority, collection: str | None = None) -> int:
        """Drop the first so many that may go, of one collection or of all; how many went."""
        if excess <= 0:
            return 0
        going = islice((name for name in self._evictable(up_to) if collection in {None, name[0]}), excess)
        removed = self._drop_all([*going])
        self.counters.evictions += removed.entries
        return removed.entries

    def _evictable(self, up_to: Priority) -> Iterator[Name]:
        """What an entry of this class may displace, while none does: lowest class first, in a class the oldest use."""
        ranking = self._ledger.bounds.ranking
        for priority in EVICTABLE[: up_to.rank + 1]:
            collections = {name for name in self._by_collection if ranking.may_evict(name, priority)}
            if collections:
                yield from (name for name in self._kept if name[0] in collections)

    def _evict(self, names: Iterator[Name], target_bytes: int) -> Removed:
        removed, before = Removed(), self.owned_bytes()
        while before - self.owned_bytes() < target_bytes:
            name = next(names, None)
            if name is None:
                break
            removed.count(name[0], self._cost(name))
            self._drop(name)
        self.counters.evictions += removed.entries
        removed.freed_bytes = before - self.owned_bytes()
        return removed

    def _drop_all(self, names: list[Name]) -> Removed:
        removed, before = Removed(), self.owned_bytes()
        for name in names:
            removed.count(name[0], self._cost(name))
            self._drop(name)
        removed.freed_bytes = before - self.owned_bytes()
        return removed

    def _drop(self, name: Name) -> None:
        cost = self._cost(name)
        self._entries_bytes -= cost
        self._ledger.note_change(self, -cost)
        del self._kept[name]
        self._by_collection[name[0]] -= 1
        if not self._by_collection[name[0]]:
            del self._by_collection[name[0]]
        if not self._kept:
            self._kept = {}

    def _cost(self, name: Name) -> int:
        return _entry_bytes(name[1], self._kept[name].stored)


def _entry_bytes(key: bytes, stored: bytes) -> int:
    return ENTRY_BYTES + len(key) + sys.getsizeof(stored)
