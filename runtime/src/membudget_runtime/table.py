"""The entries of one collection by key, and what the table itself costs.

Covers: a dict whose slots are counted: after many entries came and went it may have twice the slots of one that was
only filled, and after most left nearly all of them; entries that are out of sight at once and leave one by one. Does
not cover the order of entries (`replacement`). A look-up needs no lock: the dict is replaced whole when it shrinks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from membudget_runtime.entry import Entry
from membudget_runtime.replacement import Replacement

Key = TypeVar("Key", bound=Hashable)

GROWTH: Final = 3
"""CPython gives a dict that has run out of slots a power of two of at least three times its entries (dictobject.c)."""
COPY_GROWTH: Final = 1.5
"""And one that is a copy of another at least so many times its entries."""
LEAST_SLOTS: Final = 8
DICT_BYTES: Final = 96
"""Of a dict beside its slots: the object, the collector's head, the head of the slots."""
SLOT_BYTES: Final = 20
"""Of a dict with fewer than 2^32 slots: two thirds of an entry of 24 bytes, and an index of 4."""
SHRINK_FROM_BYTES: Final = 16 * 1024
SPARSE: Final = 10
"""A dict this many slots to an entry is written anew: one that has just grown has six at most."""


class Table(Generic[Key]):
    """Entries by key. `byte_count` is the owner's to keep: what these entries cost beside the table."""

    __slots__ = ("byte_count", "entries", "hidden", "left", "name", "order", "table_bytes")

    def __init__(self, name: str, order: Replacement[Key]) -> None:
        self.name = name
        self.order = order
        self.entries: dict[Key, Entry[Key]] = {}
        self.hidden: tuple[dict[Key, Entry[Key]], ...] = ()
        """What drops have begun to take away; no look-up finds it. None of them is empty."""
        self.byte_count = 0
        self.table_bytes = sys.getsizeof(self.entries)
        self.left = 0
        """Entries that may come before the dict runs out of slots; removals give none back."""

    def growth_bytes(self) -> int:
        """By how many bytes the next entry may make the dict larger."""
        if self.left > 0:
            return 0
        return max(0, DICT_BYTES + _slots(len(self.entries)) * SLOT_BYTES - self.table_bytes)

    def add(self, entry: Entry[Key]) -> int:
        """Take in a new entry; returns the bytes by which the dict became larger."""
        entries = self.entries
        entries[entry.key] = entry
        self.left -= 1
        if self.left >= 0:
            return 0
        self.left = _taken_at_most(_slots(len(entries) - 1)) - len(entries)
        former, self.table_bytes = self.table_bytes, sys.getsizeof(entries)
        return self.table_bytes - former

    def remove(self, entry: Entry[Key]) -> int:
        """The entry leaves; its slot stays, but for the last one's of what is hidden: the bytes that then come free."""
        key = entry.key
        if not self.hidden or self.entries.get(key) is entry:
            del self.entries[key]
            return 0
        hidden = next(hidden for hidden in self.hidden if hidden.get(key) is entry)
        del hidden[key]
        return self._forget_empty(hidden)

    def hide(self) -> dict[Key, Entry[Key]]:
        """Take all entries out of sight at once; each is still to be removed. There is one at least."""
        hidden, self.entries = self.entries, {}
        self.hidden = (*self.hidden, hidden)
        self.table_bytes, self.left = sys.getsizeof(self.entries), 0
        return hidden

    def remove_hidden(self, hidden: dict[Key, Entry[Key]]) -> tuple[Entry[Key], int]:
        """The newest of them leaves: it, and the bytes that come free."""
        _, entry = hidden.popitem()  # the only way to take one of many and look at no empty slot on the way
        return entry, self._forget_empty(hidden)

    def slots_bytes(self) -> int:
        """Of all dicts."""
        return self.table_bytes + sum(map(sys.getsizeof, self.hidden))

    def shrink(self) -> None:
        """Write the dict anew where most of its slots are empty."""
        if self.table_bytes < SHRINK_FROM_BYTES or SPARSE * SLOT_BYTES * len(self.entries) > self.table_bytes:
            return
        self.entries = dict(self.entries)
        self.left = _taken_at_most(_power_of_two(math.ceil(COPY_GROWTH * len(self.entries)))) - len(self.entries)
        self.table_bytes = sys.getsizeof(self.entries)

    def _forget_empty(self, hidden: dict[Key, Entry[Key]]) -> int:
        if hidden:
            return 0
        self.hidden = tuple(other for other in self.hidden if other is not hidden)
        return sys.getsizeof(hidden)


def _slots(entries: int) -> int:
    """Of a dict that runs out of slots with so many entries."""
    return _power_of_two(GROWTH * entries)


def _power_of_two(slots: int) -> int:
    """As CPython rounds up (`calculate_log2_keysize`): 8 to 8, but 1 to 7 to 16."""
    return 1 << ((slots | LEAST_SLOTS) - 1 | LEAST_SLOTS - 1).bit_length()


def _taken_at_most(slots: int) -> int:
    """Entries that a dict of so many slots takes."""
    return slots * 2 // 3
