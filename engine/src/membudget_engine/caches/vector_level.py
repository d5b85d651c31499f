"""One level of the embedding cache: vectors of one form by key, and what is known of the use of each.

Covers: rows in a slot arena with a note beside each in flat arrays, and their exact bytes. Does not cover which of them
goes (`vector_orders`) nor what moves between levels (`embedding_cache`). Not thread-safe.

A note lies under the number of its row: where the arena fills a slot that is dropped with the last one, the last one's
note moves along. No Python object is kept for a vector.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from membudget_runtime.slots import SlotArena

KEY_BYTES: Final = 16
MOST_USES: Final = 0xFF
NOTE_BYTES: Final = 16
"""Of one vector in the flat arrays."""
BESIDE_BYTES: Final = 64
"""Of one vector beside its slot: key, note, its places in the arena's table and among those that left; at most but for
the pages that are not full yet. Measured by tests/engine/test_embedding_bytes.py."""

Rows = npt.NDArray[np.intp]


class Note(NamedTuple):
    """What is known of one vector."""

    used: int
    """The number of its last use among all uses."""
    uses: int
    """Since it came, but for the first."""
    expires: int
    """Seconds on the cache's clock."""
    owner: int
    """The collection that brought it."""
    rounded: bool
    """Whether it was compressed once: it is not the embedder's own any more."""


class VectorLevel:
    """Vectors of `slot_bytes`."""

    def __init__(self, slot_bytes: int) -> None:
        self.slots = SlotArena(slot_bytes, KEY_BYTES)
        self.hits = 0
        self._used = array("Q")
        self._uses = array("B")
        self._expires = array("I")
        self._owners = array("H")
        self._rounded = array("B")

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def slot_bytes(self) -> int:
        """Of one vector, without what stands beside it."""
        return self.slots.slot_bytes

    def owned_bytes(self) -> int:
        """Resident pages and tables."""
        if not self.slots:
            return 0
        notes = (self._used, self._uses, self._expires, self._owners, self._rounded)
        return self.slots.owned_bytes() + sum(map(sys.getsizeof, notes))

    def add(self, key: bytes, value: bytes, note: Note) -> None:
        """A vector under a key that has none."""
        self.slots.put(key, value)
        self._used.append(note.used)
        self._uses.append(note.uses)
        self._expires.append(note.expires)
        self._owners.append(note.owner)
        self._rounded.append(note.rounded)

    def note(self, row: int) -> Note:
        """What is known of the vector in this row."""
        return Note(
            self._used[row], self._uses[row], self._expires[row], self._owners[row], rounded=bool(self._rounded[row])
        )

    def use(self, row: int, used: int) -> None:
        """It was used now."""
        self._used[row] = used
        self._uses[row] = min(MOST_USES, self._uses[row] + 1)

    def remove(self, row: int) -> tuple[bytes, bytes, Note]:
        """Key, value and note of the vector in this row, which leaves; the last row takes its place."""
        key, value, note = self.slots.key_at(row), self.slots.value_at(row), self.note(row)
        self.slots.remove(key)
        for known in (self._used, self._uses, self._expires, self._owners, self._rounded):
            known[row] = known[-1]
            known.pop()
        return key, value, note

    def rows_of(self, owners: npt.NDArray[np.uint16]) -> Rows:
        """The rows of these collections."""
        return np.flatnonzero(np.isin(np.frombuffer(self._owners, dtype=np.uint16), owners))

    def late_rows(self, now: float) -> Rows:
        """Those past their time."""
        return np.flatnonzero(np.frombuffer(self._expires, dtype=np.uint32) <= now)

    def used(self, rows: Rows) -> npt.NDArray[np.uint64]:
        """Numbers of their last use."""
        return np.frombuffer(self._used, dtype=np.uint64)[rows]

    def uses(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """How often they were used since they came."""
        return np.frombuffer(self._uses, dtype=np.uint8)[rows]
