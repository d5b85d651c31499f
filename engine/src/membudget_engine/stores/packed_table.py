"""A hash table in a few flat arrays, with its entries in the order of their use: 29 bytes each, and no object.

Covers: finding an entry by the hash of its key, order of use, exact bytes, giving all of it back at once. A dict would
cost four times that, in objects that lie between others: closed, it would leave most of its pages to the heap. Does not
cover keys: whoever owns the table compares them (`memory_chunks`). Not thread-safe.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from typing import Final

NONE: Final = 0xFFFFFFFF
"""No entry: a table holds fewer than 2^32 - 1."""

_HASH: Final = 0xFFFFFFFF
_FEWEST_SLOTS: Final = 64
_SHRINK_BELOW: Final = 4
"""Arrays with so many places to an entry are written anew."""


class PackedTable:
    """Entries by number; `places[entry]` is the owner's. `is_key(entry, key)` tells whether an entry is that key's."""

    def __init__(self, is_key: Callable[[int, str], bool]) -> None:
        self.places = array("Q")
        self._is_key = is_key
        self._clear()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """Oldest use first. The entry that was yielded may be removed before the next is asked for."""
        entry = self._first
        while entry != NONE:
            later = self._after[entry]
            yield entry
            entry = later

    @property
    def byte_count(self) -> int:
        """On the heap."""
        return sum(map(sys.getsizeof, (self.places, self._hashes, self._before, self._after, self._slots)))

    @property
    def oldest(self) -> int:
        """The entry whose use is longest ago; NONE in an empty table."""
        return self._first

    def find(self, key: str) -> int:
        """The key's entry; NONE when there is none."""
        hashed = hash(key) & _HASH
        slots, mask = self._slots, len(self._slots) - 1
        slot = hashed & mask
        while (entry := slots[slot]) != NONE:
            if self._hashes[entry] == hashed and self._is_key(entry, key):
                return entry
            slot = slot + 1 & mask
        return NONE

    def add(self, key: str, place: int) -> int:
        """A new entry, used now, for a key that has none."""
        if (self._count + 1) * 3 > len(self._slots) * 2:
            self._hash_anew(len(self._slots) * 2)
        hashed = hash(key) & _HASH
        entry = self._free
        if entry == NONE:
            entry = len(self.places)
            for numbers, number in ((self.places, place), (self._hashes, hashed), (self._before, 0), (self._after, 0)):
                numbers.append(number)
        else:
            self._free = self._after[entry]
            self.places[entry], self._hashes[entry] = place, hashed
        self._count += 1
        self._link(entry)
        self._enter(entry)
        return entry

    def use(self, entry: int) -> None:
        """It now goes last."""
        if entry != self._last:
            self._unlink(entry)
            self._link(entry)

    def remove(self, entry: int) -> None:
        """The entry leaves; its number is another's from now on."""
        self._leave(entry)
        self._unlink(entry)
        self._after[entry], self._free = self._free, entry
        self._count -= 1
        if not self._count:
            self.places = array("Q")
            self._clear()

    def shrink(self) -> bool:
        """Write the arrays anew where few of their places are used; all entries have other numbers then."""
        if len(self.places) <= _SHRINK_BELOW * max(_FEWEST_SLOTS, self._count):
            return False
        kept = [(self.places[entry], self._hashes[entry]) for entry in self]
        self.places = array("Q")
        self._clear()
        slots = _FEWEST_SLOTS
        while (len(kept) + 1) * 3 > slots * 2:
            slots *= 2
        for entry, (place, hashed) in enumerate(kept):
            self.places.append(place)
            self._hashes.append(hashed)
            self._before.append(0)
            self._after.append(0)
            self._link(entry)
        self._count = len(kept)
        self._hash_anew(slots)
        return True

    def _clear(self) -> None:
        self._hashes, self._before, self._after = array("I"), array("I"), array("I")
        self._slots = array("I", [NONE]) * _FEWEST_SLOTS
        self._first = self._last = self._free = NONE
        self._count = 0

    def _hash_anew(self, slots: int) -> None:
        self._slots = array("I", [NONE]) * slots
        for entry in self:
            self._enter(entry)

    def _enter(self, entry: int) -> None:
        slots, mask = self._slots, len(self._slots) - 1
        slot = self._hashes[entry] & mask
        while slots[slot] != NONE:
            slot = slot + 1 & mask
        slots[slot] = entry

    def _leave(self, entry: int) -> None:
        """Close the gap: whoever was put aside by this entry moves up, so that no search ends too early."""
        slots, mask = self._slots, len(self._slots) - 1
        gap = self._hashes[entry] & mask
        while slots[gap] != entry:
            gap = gap + 1 & mask
        slot = gap
        while True:
            slot = slot + 1 & mask
            follower = slots[slot]
            if follower == NONE:
                break
            wanted = self._hashes[follower] & mask
            if (slot - wanted & mask) >= (slot - gap & mask):
                slots[gap] = follower
                gap = slot
        slots[gap] = NONE

    def _link(self, entry: int) -> None:
        self._before[entry], self._after[entry] = self._last, NONE
        if self._last == NONE:
            self._first = entry
        else:
            self._after[self._last] = entry
        self._last = entry

    def _unlink(self, entry: int) -> None:
        before, after = self._before[entry], self._after[entry]
        if before == NONE:
            self._first = after
        else:
            self._after[before] = after
        if after == NONE:
            self._last = before
        else:
            self._before[after] = before
