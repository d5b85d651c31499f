"""Query vectors of cached answers, in blocks of mapped memory that are scanned whole.

Covers: vectors as the values of a slot arena, similarity scans. Does not cover where they lie
(`membudget_runtime.slots`), the answers themselves (`semantic_cache`) nor when rows go: that follows the cache's
evictions. Not thread-safe but for `best`, which may run beside changes: its caller checks the row it names.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_runtime.slots import Block, SlotArena

_Row = npt.NDArray[np.float32]


class VectorRows:
    """Rows of one length, each under a key; all keys have `key_bytes`."""

    def __init__(self, dimension: int, key_bytes: int) -> None:
        self._dimension = dimension
        self._slots = SlotArena(dimension * np.dtype(np.float32).itemsize, key_bytes)

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, key: bytes, vector: _Row) -> None:
        """Add a row, or replace the one under this key."""
        self._slots.put(key, vector.astype(np.float32, copy=False).tobytes())

    def remove(self, key: bytes) -> None:
        """Drop a row, if there is one; its pages go back."""
        self._slots.remove(key)

    def best(self, vector: _Row) -> bytes | None:
        """The key whose row has the largest inner product with the vector, as far as no row moved meanwhile."""
        best_row, best_score = -1, -np.inf
        count, per_block = len(self._slots), self._slots.rows_per_block
        for number, block in enumerate(tuple(self._slots.blocks)):
            used = min(per_block, count - number * per_block)
            if used <= 0:
                break
            scores = self._rows(block)[:used] @ vector
            row = int(scores.argmax())
            if scores[row] > best_score:
                best_row, best_score = number * per_block + row, scores[row]
        try:
            return self._slots.key_at(best_row) if best_row >= 0 else None
        except IndexError:
            return None  # another thread has dropped its whole block since

    def similarity(self, key: bytes, vector: _Row) -> float:
        """The inner product with the row under this key; -1 when there is none."""
        row = self.copy(key)
        return -1.0 if row is None else float(row @ vector)

    def copy(self, key: bytes) -> _Row | None:
        """The row under this key; None when there is none."""
        value = self._slots.get(key)
        return None if value is None else np.frombuffer(value, dtype=np.float32)

    def _rows(self, block: Block) -> Vectors:
        # The view keeps the block mapped, also when it is dropped while this scan reads it.
        values = np.frombuffer(block.memory, dtype=np.float32, count=self._slots.rows_per_block * self._dimension)
        return values.reshape(-1, self._dimension)
