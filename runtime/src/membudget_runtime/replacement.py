"""Which entry of a collection goes first: least recently used.

Covers: the order inside one collection of one cache. Does not cover the order between collections and classes
(`cache`) nor bytes (`arena`). A policy that beats this on the traces of benches/ replaces it here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")
Entry = TypeVar("Entry")


class LeastRecentlyUsed(Generic[Key, Entry]):
    """Entries by key, in the order of their last use. Not thread-safe.

    `byte_count` is the owner's to keep: the bytes of these entries.
    """

    __slots__ = ("_entries", "byte_count")

    def __init__(self) -> None:
        self.byte_count = 0
        self._entries: OrderedDict[Key, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """From the entry that goes first to the one that stays longest."""
        return iter(self._entries.values())

    def peek(self, key: Key) -> Entry | None:
        """The entry, without counting as a use."""
        return self._entries.get(key)

    def use(self, key: Key) -> Entry | None:
        """The entry; it now goes last."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def add(self, key: Key, entry: Entry) -> None:
        """A new entry, used now."""
        self._entries[key] = entry

    def remove(self, key: Key) -> None:
        """Forget the entry."""
        del self._entries[key]

    def first(self) -> Entry:
        """The entry that goes first; there must be one."""
        return next(iter(self._entries.values()))
