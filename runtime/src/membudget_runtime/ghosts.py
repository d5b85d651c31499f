"""Which entries left not long ago, by a mark of 8 bytes each.

Covers: recognising a key that comes back, from which queue it left, and how much left that queue since. Does not cover
what follows from it (`replacement`). A mark may be overwritten by another key's: then a return is not recognised,
and nothing else happens. One in four billion strangers is taken for a return.
"""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

LEAST_MARKS: Final = 64

_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: spreads hashes of neighbouring integers over the whole range (Knuth, 6.4)."""
_WORD: Final = (1 << 64) - 1
_PRINT_BITS: Final = 32
_CLOCK_MASK: Final = (1 << 31) - 1


class Return(NamedTuple):
    """A key that came back: whether it left from the main queue, and how much left that queue since."""

    from_main: bool
    left_since: int


class Ghosts:
    """Marks in one flat array: `byte_count` is all it costs. Amounts are in units the owner chooses."""

    def __init__(self) -> None:
        self._marks = array("Q", bytes(8 * LEAST_MARKS))
        self._shift = 64 - LEAST_MARKS.bit_length() + 1
        self._left = [0, 0]

    @property
    def byte_count(self) -> int:
        """Heap bytes of the marks."""
        return 8 * len(self._marks)

    def hold(self, entries: int) -> None:
        """Make the array fit so many entries; where its size changes, what it knew is forgotten."""
        marks = len(self._marks)
        if marks // 8 <= entries <= marks:
            return
        wanted = max(LEAST_MARKS, 1 << entries.bit_length())
        if wanted == marks:
            return
        try:
            self._marks = array("Q", bytes(8 * wanted))
        except MemoryError:
            return  # at a guard of the process; with fewer marks fewer returns are recognised
        self._shift = 64 - wanted.bit_length() + 1

    def remember(self, hashed: int, amount: int, *, from_main: bool) -> None:
        """An entry left a queue."""
        mixed = (hashed * _GOLDEN) & _WORD
        left = self._left[from_main] = self._left[from_main] + amount
        mark = (mixed & 0xFFFFFFFF) << _PRINT_BITS | from_main << 31 | (left & _CLOCK_MASK)
        self._marks[mixed >> self._shift] = mark

    def recall(self, hashed: int) -> Return | None:
        """Whether this key left not long ago; it is forgotten then."""
        mixed = (hashed * _GOLDEN) & _WORD
        slot = mixed >> self._shift
        mark = self._marks[slot]
        if not mark or mark >> _PRINT_BITS != mixed & 0xFFFFFFFF:
            return None
        self._marks[slot] = 0
        from_main = bool(mark >> 31 & 1)
        return Return(from_main, (self._left[from_main] - mark) & _CLOCK_MASK)
