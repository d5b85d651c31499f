"""What one cache keeps: records, values, the orders in which they go, and the bytes that all of it costs.

Covers: an entry that comes, leaves or goes to make place for another, and moving values together. Does not cover
whether a value is admitted (`cache`, `ledger`), nor disk (`entry_spill`). The ledger's lock guards it, but for the
look-up of a record in its table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

from membudget_contract.policy import Priority
from membudget_runtime.arena import ALONE_BYTES, SEGMENT_BYTES, SegmentArena
from membudget_runtime.class_orders import ClassOrders
from membudget_runtime.component import Ranking, Removed
from membudget_runtime.entry import DROP_ENTRIES, SPILLED_BYTES, Entry
from membudget_runtime.replacement import Replacement
from membudget_runtime.spill import SpillStore
from membudget_runtime.table import Table

ENTRY_BYTES: Final = 282
"""Heap bytes of one entry beside its value and its slot in a table: the record, its numbers, a key of 16 bytes;
274 for values of equal lengths or under 256 bytes, 293 to 305 where every length is a number of its own on the heap.
Measured from outside by tests/runtime/test_cache_bytes.py (Python 3.11, x86-64)."""

KEY_BYTES: Final = 64
"""Of them the key's: what `key_bytes` tells of a key beyond this is counted for each entry."""

NEW_TABLE_BYTES: Final = 1024
"""At most what the first entry of a collection costs more: a table, an order with its marks."""

DEAD_SHARE: Final = 0.05
"""Of the arena: below it an eviction rather drops one entry more than move values together, which costs ten times
the bytes it gains."""

REPLACED_ENTRIES: Final = 32
REPLACED_BYTES: Final = 64 * 1024
"""Dropped at once for values of the same length, whichever is less: a look at what others hold is then rare."""
UNLIKE_ENTRIES: Final = 4
"""Dropped without one of that length among them: the lengths vary, and places of the right one are left to chance."""

Key = TypeVar("Key", bound=Hashable)


def key_bytes(key: Hashable) -> int:
    """Heap bytes of a key, the same whenever it is asked.

    A string beyond ASCII keeps its UTF-8 beside itself from the moment anybody asks for it, as databases and encoders
    do: counted from the start.
    """
    if type(key) is str and not key.isascii():
        utf8 = key.encode(errors="surrogatepass")
        return sys.getsizeof(utf8.decode(errors="surrogatepass")) + len(utf8) + 1
    return sys.getsizeof(key)


class KeptEntries(Generic[Key]):
    """Entries by (collection, key). `entry_bytes` is what one costs on the heap beside what its key has more."""

    def __init__(
        self,
        policy: type[Replacement[Key]],
        ranking: Ranking,
        *,
        entry_bytes: int,
        store: SpillStore | None,
        on_removed: Callable[[str, Key], None],
    ) -> None:
        self.arena = SegmentArena()
        self.tables: dict[str, Table[Key]] = {}
        self.orders = ClassOrders(policy, ranking)
        self.count = 0
        self.heap_bytes = 0
        """Of all entries."""
        self.tables_bytes = 0
        """Of all tables, and of what the orders cost beside the entries."""
        self.spilled_bytes = 0
        self._entry_bytes = entry_bytes
        self._store = store
        self._on_removed = on_removed

    def owned_bytes(self) -> int:
        """Resident bytes of the arena, and what entries and their tables cost on the heap."""
        return self.arena.resident_bytes + self.heap_bytes + self.tables_bytes

    def used_bytes(self) -> int:
        """The same without what is spare."""
        return self.arena.held_bytes + self.heap_bytes + self.tables_bytes

    def find(self, collection: str, key: Key) -> Entry[Key] | None:
        """The record under this key."""
        table = self.tables.get(collection)
        return None if table is None else table.entries.get(key)

    def heap_bytes_of(self, key: Key) -> int:
        """What the record of a key costs."""
        beyond = key_bytes(key) - KEY_BYTES
        return self._entry_bytes + beyond if beyond > 0 else self._entry_bytes

    def needed_bytes(self, collection: str, heap_bytes: int, length: int) -> int:
        """By how much a value of so many bytes and its record may make all this larger."""
        table = self.tables.get(collection)
        if table is None:
            heap_bytes += NEW_TABLE_BYTES
        elif not table.left:
            heap_bytes += table.growth_bytes()
        return self.arena.needed_bytes(length) + heap_bytes

    def add(self, entry: Entry[Key], stored: bytes, heap_bytes: int, uses: int) -> None:
        """Keep an entry that has no older one under its key; there is room. Its collection's name is interned.

        Raises:
            MemoryError: the process may have no more memory; nothing changed.
        """
        self.arena.store(entry, stored)
        table = self.tables.get(entry.collection)
        if table is None:
            table = self._new_table(entry)
        try:
            self.tables_bytes += table.add(entry)
        except MemoryError:  # its dict may want megabytes at once
            self.arena.release(entry)
            raise
        if uses:
            table.order.add_again(entry, uses)
        else:
            table.order.add(entry)
        table.byte_count += entry.length + heap_bytes
        self.heap_bytes += heap_bytes
        self.count += 1

    def remove(self, entry: Entry[Key]) -> None:
        """The entry leaves for good, for another reason than to make room."""
        self.tables[entry.collection].order.remove(entry)
        self._forget(entry, self.heap_bytes_of(entry.key))

    def remove_hidden(self, collection: str, key: Key) -> None:
        """An entry of a collection that is being dropped leaves before another one comes under its key."""
        table = self.tables.get(collection)
        for hidden in () if table is None else table.hidden:
            if key in hidden:
                self.remove(hidden[key])
                return

    def drop(self, collection: str) -> Iterator[int]:
        """Drop every entry of a collection, the newest first: how many in each step, between which others may run.

        None is found from the first step on, and the collection may fill anew. What leaves for another reason meanwhile
        is not counted.
        """
        table = self.tables.get(collection)
        if table is None or not table.entries:
            return
        hidden = table.hide()
        self.tables_bytes += table.table_bytes
        while hidden:
            dropped = min(len(hidden), DROP_ENTRIES)
            for _ in range(dropped):
                entry, freed = table.remove_hidden(hidden)
                self.tables_bytes -= freed
                table.order.remove(entry)
                self._let_go(table, entry, self.heap_bytes_of(entry.key))
            yield dropped

    def cost(self, entry: Entry[Key]) -> int:
        """Bytes of memory that its going gives back."""
        return self.heap_bytes_of(entry.key) + entry.beside_bytes()

    def evict(self, target_bytes: int, priority: Priority) -> Removed:
        """Drop the least valuable entries of one class until at least `target_bytes` are freed."""
        removed = Removed()
        order = self.orders.evictable(priority)
        owned, before = self.owned_bytes(), self.used_bytes()
        goal = before - target_bytes
        moving = True
        while self.used_bytes() > goal:
            if moving and self._is_sparse():
                moving = self.arena.move_sparsest()
                continue
            entry = None if order is None else self._pop(order)
            if entry is None:
                break
            heap = self.heap_bytes_of(entry.key)
            removed.count(entry.collection, heap + entry.beside_bytes())
            self._forget(entry, heap)
        self.measure_tables()
        self.stay_within(owned)
        removed.freed_bytes = before - self.used_bytes()
        return removed

    def replace(self, length: int, priority: Priority) -> int:
        """Drop the next few entries of one class, in whose places values of this length may lie; how many went."""
        order = self.orders.evictable(priority)
        if order is None or length > ALONE_BYTES:
            return 0
        dropped = dropped_bytes = 0
        alike = False
        while dropped < (REPLACED_ENTRIES if alike else UNLIKE_ENTRIES) and dropped_bytes < REPLACED_BYTES:
            entry = self._pop(order)
            if entry is None:
                break
            alike = alike or entry.length == length
            heap = self.heap_bytes_of(entry.key)
            self._forget(entry, heap)
            dropped += 1
            dropped_bytes += heap + entry.length
        return dropped

    def move_together(self) -> None:
        """As far as it pays."""
        owned = self.owned_bytes()
        for _ in self.moves():
            pass
        self.measure_tables()
        self.stay_within(owned)

    def moves(self) -> Iterator[bool]:
        """The same in steps, between which others may run: whether the values of a segment lie in two places.

        Those bytes are held twice until the segment is empty.
        """
        while self._is_sparse() and (segment := self.arena.sparsest()) is not None:
            while segment.values:
                if not self.arena.move_out(segment, DROP_ENTRIES):
                    return
                yield segment.values > 0

    def measure_tables(self) -> None:
        """Let tables give empty slots back, and count what they and the orders cost now."""
        for table in self.tables.values():
            table.shrink()
        self.tables_bytes = sum(table.slots_bytes() for table in self.tables.values()) + self.orders.extra_bytes()

    def stay_within(self, owned_bytes: int | None) -> None:
        """Give up what is spare rather than own more; a move maps a segment before it empties another."""
        if owned_bytes is not None:
            self.arena.shrink_spare(owned_bytes - self.heap_bytes - self.tables_bytes)

    def rank_as(self, ranking: Ranking) -> None:
        """Let each entry stand in the order of its class."""
        if self.orders.rank_as(ranking, self.tables):
            self.measure_tables()

    def leave_disk(self, entry: Entry[Key]) -> None:
        """A spilled entry's value is in memory again, or not wanted any more."""
        place = entry.spilled
        assert self._store is not None
        assert place is not None, "the entry is not on disk"
        entry.spilled = None
        self.heap_bytes -= SPILLED_BYTES
        self.spilled_bytes -= place.length
        self._store.release(place)

    def _new_table(self, entry: Entry[Key]) -> Table[Key]:
        name = entry.collection
        table = self.tables[name] = Table(name, self.orders.of(name))
        self.measure_tables()
        return table

    def _pop(self, order: Replacement[Key]) -> Entry[Key] | None:
        """The entry that goes next; the order may take more marks for it."""
        marks_bytes = order.extra_bytes()
        entry = order.pop()
        self.tables_bytes += order.extra_bytes() - marks_bytes
        return entry

    def _is_sparse(self) -> bool:
        """True when so much of the arena is dead that moving values together pays, and more than one segment."""
        dead = self.arena.held_bytes - self.arena.live_bytes
        return dead > SEGMENT_BYTES and dead > DEAD_SHARE * self.arena.held_bytes

    def _forget(self, entry: Entry[Key], heap_bytes: int) -> None:
        """The entry, which stands in no order any more and costs that much on the heap, leaves for good."""
        table = self.tables[entry.collection]
        self.tables_bytes -= table.remove(entry)
        self._let_go(table, entry, heap_bytes)

    def _let_go(self, table: Table[Key], entry: Entry[Key], heap_bytes: int) -> None:
        """The same of one that its table has not any more."""
        if entry.spilled is None:
            table.byte_count -= heap_bytes + entry.length
            self.arena.release(entry)
        else:
            table.byte_count -= heap_bytes + SPILLED_BYTES
            self.leave_disk(entry)
        self.heap_bytes -= heap_bytes
        self.count -= 1
        if not table.entries and not table.hidden:
            del self.tables[entry.collection]
            self.tables_bytes -= table.table_bytes
        if not self.count:
            self.orders.clear()
            self.tables_bytes = 0
        self._on_removed(entry.collection, entry.key)
