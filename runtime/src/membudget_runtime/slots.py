"""Values of one size under keys of one size, in mapped memory without a gap: the arena for vectors.

Covers: storing, reading, replacing, dropping one or nearly all, exact bytes, spilling everything by one sequential
write and loading it back. Does not cover values of any length (`arena`) nor which goes first (`replacement`). Not
thread-safe.

A slot that is dropped is filled with the last one, so that the values always lie densely and what is behind them is
with the kernel at once. Keys lie in the mapping too, and an open-addressing table of 8 bytes an entry finds them: no
Python object is kept for a slot. benches/slots.py measures it beside peers.
"""

from __future__ import annotations

import mmap
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from membudget_runtime.arena import page_bytes
from membudget_runtime.errors import SpillDamaged
from membudget_runtime.spill import SpillPlace, SpillStore

BLOCK_BYTES: Final = 1024 * 1024
"""Of values, about. Mapped a block at a time, resident a page at a time."""

LEAST_PLACES: Final = 16
FULL_NUMERATOR, FULL_DENOMINATOR = 3, 4
"""A table that is fuller is written twice as large: 11 to 21 bytes a slot."""
SPARSE: Final = 8
"""One with so many places to a slot is written anew, as small as it may be."""

_PRINT_BITS: Final = 32
_PRINT: Final = (1 << _PRINT_BITS) - 1


class Block:
    """One private mapping: values from its beginning, their keys from `keys_at` on.

    It is unmapped when the last view of it goes, also one that a scan in flight holds.
    """

    __slots__ = ("keys_at", "memory")

    def __init__(self, rows: int, slot_bytes: int, key_bytes: int) -> None:
        self.keys_at = page_bytes(rows * slot_bytes)
        self.memory = mmap.mmap(
            -1, self.keys_at + page_bytes(rows * key_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        # Neighbouring blocks become one mapping for the kernel; huge pages in it would hold more than slots.
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)

    def give_back(self, start: int, kept: int, touched: int) -> None:
        """Of the region that begins at `start`, the pages behind the bytes kept."""
        kept, touched = page_bytes(kept), page_bytes(touched)
        if touched > kept:
            self.memory.madvise(mmap.MADV_DONTNEED, start + kept, touched - kept)


class SpilledSlots:
    """A whole arena on disk."""

    def __init__(self, places: Sequence[SpillPlace], count: int) -> None:
        self.places = places
        self.count = count


def _release(store: SpillStore, spilled: SpilledSlots) -> None:
    for place in spilled.places:
        store.release(place)


class SlotArena:
    """Slots by key. `slot_bytes` and `key_bytes` are the sizes of all values and of all keys."""

    def __init__(self, slot_bytes: int, key_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self.key_bytes = key_bytes
        self.rows_per_block = max(1, BLOCK_BYTES // slot_bytes)
        self.blocks: list[Block] = []
        """Each full but the last: `rows_per_block` slots from its beginning, as far as `len` goes."""
        self._count = 0
        self._table = array("Q", bytes(8 * LEAST_PLACES))
        """Open addressing, linear probing: an entry is 32 bits of the key's hash, and its row plus one; 0 is free."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: bytes) -> bool:
        return self._place(key) is not None

    def get(self, key: bytes) -> bytes | None:
        """A copy of the value; None when there is none."""
        row = self.row(key)
        return None if row is None else self.value_at(row)

    def row(self, key: bytes) -> int | None:
        """In which row the value lies until anything is dropped; None when there is none."""
        place = self._place(key)
        return None if place is None else (self._table[place] & _PRINT) - 1

    def put(self, key: bytes, value: bytes | memoryview) -> None:
        """Keep a value, or replace the one under its key.

        Raises:
            ValueError: key or value has another size than all have.
        """
        if len(key) != self.key_bytes or len(value) != self.slot_bytes:
            raise ValueError(
                f"a key of {len(key)} bytes and a value of {len(value)}, in an arena of {self.key_bytes} and "
                f"{self.slot_bytes}"
            )
        row = self.row(key)
        if row is None:
            row = self._count
            if row == len(self.blocks) * self.rows_per_block:
                self.blocks.append(Block(self.rows_per_block, self.slot_bytes, self.key_bytes))
            self._count += 1
            if self._count * FULL_DENOMINATOR > len(self._table) * FULL_NUMERATOR:
                self._resize(2 * len(self._table))
            self._enter(hash(key) & _PRINT, row)
            self._write_key(row, key)
        block, slot = divmod(row, self.rows_per_block)
        start = slot * self.slot_bytes
        self.blocks[block].memory[start : start + self.slot_bytes] = value

    def remove(self, key: bytes) -> bool:
        """Drop a value, if there is one: the last one takes its slot."""
        place = self._place(key)
        if place is None:
            return False
        row, last = (self._table[place] & _PRINT) - 1, self._count - 1
        self._leave(place)
        if row != last:
            moved = self.key_at(last)
            lies_at = self._place(moved)
            assert lies_at is not None, "every row has its entry"
            self._table[lies_at] = (hash(moved) & _PRINT) << _PRINT_BITS | (row + 1)
            self._move(last, row)
        self._cut(last)
        if len(self._table) > max(LEAST_PLACES, SPARSE * self._count):
            self._index_anew()
        return True

    def retain(self, keys: Iterable[bytes]) -> int:
        """Drop all values but these, in one pass over those that stay; returns how many went."""
        rows = sorted({row for key in keys if (row := self.row(key)) is not None})
        gone = self._count - len(rows)
        if not gone:
            return 0
        self._close_ranks(rows)
        self._cut(len(rows))
        self._index_anew()
        return gone

    def clear(self) -> None:
        """Drop everything."""
        self.retain(())

    def value_at(self, row: int) -> bytes:
        """A copy of the value in this row."""
        block, slot = divmod(row, self.rows_per_block)
        start = slot * self.slot_bytes
        return self.blocks[block].memory[start : start + self.slot_bytes]

    def key_at(self, row: int) -> bytes:
        """The key of the value in this row."""
        number, slot = divmod(row, self.rows_per_block)
        block = self.blocks[number]
        start = block.keys_at + slot * self.key_bytes
        return block.memory[start : start + self.key_bytes]

    def owned_bytes(self) -> int:
        """Resident pages of the blocks, and the table."""
        full, rest = divmod(self._count, self.rows_per_block)
        return (
            full * self._resident(self.rows_per_block)
            + self._resident(rest)
            + sys.getsizeof(self._table)
            + sys.getsizeof(self.blocks)
        )

    def spill(self, store: SpillStore) -> SpilledSlots:
        """Write everything by one sequential write, straight from the mapping, and hold nothing any more.

        Raises:
            SpillFailed: the bound is reached, or the file system refused; everything is still here.
        """
        spilled = SpilledSlots(store.write([*self._records()]), self._count)
        self.clear()
        return spilled

    def load(self, store: SpillStore, spilled: SpilledSlots) -> None:
        """Take back what was spilled from an arena of these sizes; this one is empty. The file goes.

        Raises:
            SpillDamaged: some of it did not come back as it was written; nothing was taken, the file goes.
            SpillUnread: it cannot be read now; nothing was taken, and it can be loaded later.
        """
        assert not self._count, "values here would be overwritten"
        try:
            self.blocks = [self._read(store, spilled.places[at : at + 2]) for at in range(0, len(spilled.places), 2)]
        except SpillDamaged:
            _release(store, spilled)
            raise
        _release(store, spilled)
        self._count = spilled.count
        self._index_anew()

    def _read(self, store: SpillStore, places: Sequence[SpillPlace]) -> Block:
        """A block of these values and keys."""
        values, keys = map(store.read, places)
        block = Block(self.rows_per_block, self.slot_bytes, self.key_bytes)
        block.memory[: len(values)] = values
        block.memory[block.keys_at : block.keys_at + len(keys)] = keys
        return block

    def _records(self) -> Iterator[memoryview]:
        """Values and keys of each block in turn."""
        left = self._count
        for block in self.blocks:
            used = min(left, self.rows_per_block)
            left -= used
            view = memoryview(block.memory)
            yield view[: used * self.slot_bytes]
            yield view[block.keys_at : block.keys_at + used * self.key_bytes]

    def _resident(self, rows: int) -> int:
        return page_bytes(rows * self.slot_bytes) + page_bytes(rows * self.key_bytes)

    def _place(self, key: bytes) -> int | None:
        """Where in the table the key's entry is."""
        mark = hash(key) & _PRINT
        table = self._table
        mask = len(table) - 1
        place = mark & mask
        while entry := table[place]:
            if entry >> _PRINT_BITS == mark and self.key_at((entry & _PRINT) - 1) == key:
                return place
            place = (place + 1) & mask
        return None

    def _enter(self, mark: int, row: int) -> None:
        table = self._table
        mask = len(table) - 1
        place = mark & mask
        while table[place]:
            place = (place + 1) & mask
        table[place] = mark << _PRINT_BITS | (row + 1)

    def _leave(self, place: int) -> None:
        """Free an entry; those behind it that could not stand nearer to their own place move up."""
        table = self._table
        mask = len(table) - 1
        probe = place
        while entry := table[(probe := (probe + 1) & mask)]:
            home = (entry >> _PRINT_BITS) & mask
            if (probe - home) & mask >= (probe - place) & mask:
                table[place] = entry
                place = probe
        table[place] = 0

    def _resize(self, places: int) -> None:
        former, self._table = self._table, array("Q", bytes(8 * places))
        for entry in former:
            if entry:
                self._enter(entry >> _PRINT_BITS, (entry & _PRINT) - 1)

    def _index_anew(self) -> None:
        places = LEAST_PLACES
        while self._count * FULL_DENOMINATOR > places * FULL_NUMERATOR:
            places *= 2
        self._table = array("Q", bytes(8 * places))
        for row in range(self._count):
            self._enter(hash(self.key_at(row)) & _PRINT, row)

    def _move(self, row: int, target: int) -> None:
        value, key = self.value_at(row), self.key_at(row)
        block, slot = divmod(target, self.rows_per_block)
        start = slot * self.slot_bytes
        self.blocks[block].memory[start : start + self.slot_bytes] = value
        self._write_key(target, key)

    def _close_ranks(self, rows: Sequence[int]) -> None:
        """As `_move` of each to the row of its number, at half the time: this is what shrinking a cache waits for."""
        per_block, slot_bytes, key_bytes, blocks = self.rows_per_block, self.slot_bytes, self.key_bytes, self.blocks
        for target, row in enumerate(rows):
            to, out = blocks[target // per_block], blocks[row // per_block]
            into, start = target % per_block * slot_bytes, row % per_block * slot_bytes
            to.memory[into : into + slot_bytes] = out.memory[start : start + slot_bytes]
            into, start = to.keys_at + target % per_block * key_bytes, out.keys_at + row % per_block * key_bytes
            to.memory[into : into + key_bytes] = out.memory[start : start + key_bytes]

    def _write_key(self, row: int, key: bytes) -> None:
        number, slot = divmod(row, self.rows_per_block)
        block = self.blocks[number]
        start = block.keys_at + slot * self.key_bytes
        block.memory[start : start + self.key_bytes] = key

    def _cut(self, count: int) -> None:
        """Hold so many slots, fewer than now: the pages behind them go back."""
        former, self._count = self._count, count
        del self.blocks[-(-count // self.rows_per_block) :]
        used = count % self.rows_per_block
        if used:
            was = min(former - count + used, self.rows_per_block)
            block = self.blocks[-1]
            block.give_back(0, used * self.slot_bytes, was * self.slot_bytes)
            block.give_back(block.keys_at, used * self.key_bytes, was * self.key_bytes)
