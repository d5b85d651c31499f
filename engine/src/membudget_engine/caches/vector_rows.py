"""Query vectors of cached answers, in blocks of mapped memory that are scanned whole.

Covers: rows that stay dense under removal, similarity scans, exact bytes. Does not cover the answers themselves
(`semantic_cache`) nor when rows go: that follows the cache's evictions. Not thread-safe but for `best`, which may
run beside changes: its caller checks the row it names.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors

ROWS_PER_BLOCK: Final = 256
"""With 384 dimensions 384 kB: the step in which memory comes and goes."""

_Row = npt.NDArray[np.float32]


class VectorRows:
    """Rows of one length, each under a key."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._blocks: list[Vectors] = []
        self._keys: list[bytes] = []
        self._rows: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes, vector: _Row) -> None:
        """Add a row, or replace the one under this key."""
        row = self._rows.get(key)
        if row is None:
            row = len(self._keys)
            if row == len(self._blocks) * ROWS_PER_BLOCK:
                self._blocks.append(_mapped_block(self._dimension))
            self._keys.append(key)
            self._rows[key] = row
        self._row(row)[:] = vector

    def remove(self, key: bytes) -> None:
        """Drop a row, if there is one: the last row takes its place, an emptied block is unmapped."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last_key = self._keys.pop()
        last = len(self._keys)
        if row != last:
            self._row(row)[:] = self._row(last)
            self._keys[row] = last_key
            self._rows[last_key] = row
        if last == (len(self._blocks) - 1) * ROWS_PER_BLOCK:
            self._blocks.pop()

    def best(self, vector: _Row) -> bytes | None:
        """The key whose row has the largest inner product with the vector, as far as no row moved meanwhile."""
        best_key: bytes | None = None
        best_score = -np.inf
        keys: Sequence[bytes] = self._keys
        for number, block in enumerate(list(self._blocks)):
            used = min(ROWS_PER_BLOCK, len(keys) - number * ROWS_PER_BLOCK)
            if used <= 0:
                break
            scores = block[:used] @ vector
            row = int(scores.argmax())
            position = number * ROWS_PER_BLOCK + row
            if scores[row] > best_score and position < len(keys):
                best_key, best_score = keys[position], float(scores[row])
        return best_key

    def similarity(self, key: bytes, vector: _Row) -> float:
        """The inner product with the row under this key; -1 when there is none."""
        row = self._rows.get(key)
        return -1.0 if row is None else float(self._row(row) @ vector)

    def _row(self, row: int) -> _Row:
        return self._blocks[row // ROWS_PER_BLOCK][row % ROWS_PER_BLOCK]


def _mapped_block(dimension: int) -> Vectors:
    """Unmapped when the last view of it goes, also one that a scan in flight still holds."""
    size = ROWS_PER_BLOCK * dimension * np.dtype(np.float32).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype=np.float32).reshape(ROWS_PER_BLOCK, dimension)
