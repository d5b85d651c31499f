"""Which vectors of the embedding cache's compressed level go first: least recently used, least frequently, adaptive.

Covers: choosing some hundred rows at once, in one pass over flat arrays. Does not cover who may go (classes) nor moving
them (`embedding_cache`). The runtime's caches have orders of linked records (`membudget_runtime.replacement`): such a
record is five times what a vector may cost here. The adaptive one learns as theirs does, from the same figures.
"""

from __future__ import annotations

import abc

import numpy as np
import numpy.typing as npt

from membudget_engine.caches.vector_level import Note, Rows, VectorLevel
from membudget_runtime.ghosts import Ghosts
from membudget_runtime.replacement import (
    FIRST_SHARE,
    LARGEST_SHARE,
    LARGEST_STEP,
    LEAST_SHARE,
    NEAR,
    REMEMBERED,
    STEP_ENTRIES,
)

_USES_SHIFT = np.uint64(56)


class VectorOrder(abc.ABC):
    """Decides among rows of one class. The defaults suit an order without a memory."""

    @abc.abstractmethod
    def first(self, level: VectorLevel, rows: Rows, count: int) -> Rows:
        """So many of these rows, or all, the one that goes first ahead."""

    def left(self, key: bytes, note: Note) -> None:
        """A vector was dropped to make room."""
        del key, note

    def uses_of_new(self, key: bytes, held: int) -> int:
        """As how often used a vector begins that comes among so many."""
        del key, held
        return 0

    def owned_bytes(self) -> int:
        """Of its memory."""
        return 0


class LeastRecent(VectorOrder):
    """What was not used for longest."""

    def first(self, level: VectorLevel, rows: Rows, count: int) -> Rows:
        """By the last use."""
        return _smallest(rows, level.used(rows), count)


class LeastFrequent(VectorOrder):
    """What was used least often, up to 255 times; among those what was not used for longest."""

    def first(self, level: VectorLevel, rows: Rows, count: int) -> Rows:
        """By uses, then by the last."""
        return _smallest(rows, level.uses(rows).astype(np.uint64) << _USES_SHIFT | level.used(rows), count)


class Adaptive(VectorOrder):
    """A share for vectors that were not used again, the rest for those that were; each by its last use.

    A vector that comes back soon after it went says what its part would have gained by a few rows more: the share moves
    to where both would gain alike, as that of `membudget_runtime.replacement.AdaptiveFifo`.
    """

    def __init__(self) -> None:
        self.new_share = FIRST_SHARE
        self._ghosts = Ghosts()

    def first(self, level: VectorLevel, rows: Rows, count: int) -> Rows:
        """From the new ones what is over their share, then from the others."""
        is_new = level.uses(rows) == 0
        new, main = rows[is_new], rows[~is_new]
        stays_new = int(self.new_share * max(0, len(rows) - count))
        from_new = max(min(count, len(new) - stays_new), count - len(main), 0)
        self._ghosts.hold(len(level))
        return np.concatenate(
            [
                _smallest(new, level.used(new), from_new),
                _smallest(main, level.used(main), count - min(from_new, count)),
            ]
        )

    def left(self, key: bytes, note: Note) -> None:
        """Remember it for as long as about as many again leave."""
        self._ghosts.remember(hash(key), 1, from_main=note.uses > 0)

    def uses_of_new(self, key: bytes, held: int) -> int:
        """One for what is known to come back."""
        back = self._ghosts.recall(hash(key))
        if back is None or back.left_since > REMEMBERED * held:
            return 0
        if back.left_since <= NEAR * held:
            step = min(LARGEST_STEP, STEP_ENTRIES / held)
            moved = self.new_share + (-step if back.from_main else step)
            self.new_share = min(LARGEST_SHARE, max(LEAST_SHARE, moved))
        return 1

    def owned_bytes(self) -> int:
        """The marks of those that left."""
        return self._ghosts.byte_count


def _smallest(rows: Rows, by: npt.NDArray[np.uint64], count: int) -> Rows:
    """So many rows of the smallest figures, in their order."""
    if count <= 0:
        return rows[:0]
    if count < len(rows):
        chosen = np.argpartition(by, count - 1)[:count]
        rows, by = rows[chosen], by[chosen]
    return rows[np.argsort(by, kind="stable")]
