"""Byte strings packed one behind the other in mapped memory, each found by one number.

Covers: adding, reading, changing bytes in place, dropping, moving what is left together, exact bytes. One record costs
no object of its own: its place is a number in its owner's table (`packed_table`). Does not cover keys. Not thread-safe.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import Final

from membudget_runtime.arena import page_bytes

BLOCK_BYTES: Final = 256 * 1024
"""One private mapping; a longer record is refused."""

SPARSE: Final = 0.75
"""A block with less of its bytes in use is worth moving together."""

_BITS: Final = 18
_MASK: Final = (1 << _BITS) - 1
"""Of a place: 18 bits for a record's length, 18 for where it begins in its block, the rest for the block."""


class _Block:
    __slots__ = ("live", "memory", "used")

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Huge pages would make untouched parts resident: the bytes would no longer be exact.
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.used = 0
        self.live = 0


class PackedRecords:
    """Records by their place. `resident_bytes` is what the kernel charges for them."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._open = -1
        self._next = 0
        self.resident_bytes = 0

    def add(self, record: bytes) -> int:
        """Keep a record; its place. Raises ValueError for one longer than BLOCK_BYTES, or empty."""
        length = len(record)
        if not 0 < length < BLOCK_BYTES:
            raise ValueError(f"a record has 1 to {BLOCK_BYTES - 1} bytes, not {length}")
        block = self._blocks.get(self._open)
        if block is None or block.used + length > BLOCK_BYTES:
            self._open = self._next
            self._next += 1
            block = self._blocks[self._open] = _Block()
        start = block.used
        block.memory[start : start + length] = record
        block.used += length
        block.live += length
        self.resident_bytes += page_bytes(block.used) - page_bytes(start)
        return self._open << 2 * _BITS | start << _BITS | length

    def read(self, place: int) -> bytes:
        """A copy of the record."""
        start = place >> _BITS & _MASK
        return self._blocks[place >> 2 * _BITS].memory[start : start + (place & _MASK)]

    def write(self, place: int, content: bytes) -> None:
        """Change the first bytes of the record."""
        start = place >> _BITS & _MASK
        self._blocks[place >> 2 * _BITS].memory[start : start + len(content)] = content

    def drop(self, place: int) -> None:
        """Forget the record; a block without one goes back to the kernel."""
        number = place >> 2 * _BITS
        block = self._blocks[number]
        block.live -= place & _MASK
        if not block.live:
            self._unmap(number)

    def length(self, place: int) -> int:
        """Bytes of the record."""
        return place & _MASK

    def moved_together(self, places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Move the records of sparse blocks into others: the owner's numbers of those that moved, with new places.

        `places` are all there are. To be exhausted before anything else is done.
        """
        sparse = {
            number
            for number, block in self._blocks.items()
            if number != self._open and block.live < SPARSE * block.used
        }
        if not sparse:
            return
        for number, place in places:
            if place >> 2 * _BITS in sparse:
                moved = self.add(self.read(place))
                self.drop(place)
                yield number, moved

    def dead_bytes(self) -> int:
        """Held by records that were dropped."""
        return sum(block.used - block.live for block in self._blocks.values())

    def clear(self) -> None:
        """Give everything back."""
        for number in [*self._blocks]:
            self._unmap(number)

    def _unmap(self, number: int) -> None:
        block = self._blocks.pop(number)
        self.resident_bytes -= page_bytes(block.used)
        block.memory.close()
        if number == self._open:
            self._open = -1
