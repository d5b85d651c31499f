"""Query vectors of cached answers, in blocks of mapped memory that are scanned whole.

Covers: rows that stay dense under removal, similarity scans, exact bytes. Does not cover the answers themselves
(`semantic_cache`) nor when rows go: that follows the cache's evictions. Not thread-safe but for `best`, which may
run beside changes: its caller checks the row it names.
"""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_runtime.arena import page_bytes

ROWS_PER_BLOCK: Final = 256
"""With 384 dimensions 384 kB of addresses: enough rows for one scan to outweigh its call."""

_Row = npt.NDArray[np.float32]


class _Block:
    """One private mapping. It is unmapped when the last view of it goes, also one that a scan in flight holds."""

    __slots__ = ("_memory", "rows")

    def __init__(self, dimension: int) -> None:
        size = ROWS_PER_BLOCK * dimension * np.dtype(np.float32).itemsize
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Neighbouring blocks become one mapping for the kernel; huge pages in it would hold more than rows.
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.rows: Vectors = np.frombuffer(self._memory, dtype=np.float32).reshape(ROWS_PER_BLOCK, dimension)

    def give_back_behind(self, used: int) -> None:
        """The row behind the first `used` ones was dropped: give back the pages that only it lay on."""
        row_bytes = self.rows.strides[0]
        kept, touched = page_bytes(used * row_bytes), page_bytes((used + 1) * row_bytes)
        if touched > kept:
            self._memory.madvise(mmap.MADV_DONTNEED, kept, touched - kept)


class VectorRows:
    """Rows of one length, each under a key."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._blocks: list[_Block] = []
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
                self._blocks.append(_Block(self._dimension))
            self._keys.append(key)
            self._rows[key] = row
        self._row(row)[:] = vector

    def remove(self, key: bytes) -> None:
        """Drop a row, if there is one: the last row takes its place, its pages and an emptied block go back."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last_key = self._keys.pop()
        last = len(self._keys)
        if row != last:
            self._row(row)[:] = self._row(last)
            self._keys[row] = last_key
            self._rows[last_key] = row
        used = last % ROWS_PER_BLOCK
        if used:
            self._blocks[-1].give_back_behind(used)
        else:
            self._blocks.pop()

    def best(self, vector: _Row) -> bytes | None:
        """The key whose row has the largest inner product with the vector, as far as no row moved meanwhile."""
        best_row, best_score = -1, -np.inf
        count = len(self._keys)
        for number, block in enumerate(tuple(self._blocks)):
            used = min(ROWS_PER_BLOCK, count - number * ROWS_PER_BLOCK)
            if used <= 0:
                break
            scores = block.rows[:used] @ vector
            row = int(scores.argmax())
            if scores[row] > best_score:
                best_row, best_score = number * ROWS_PER_BLOCK + row, scores[row]
        # A slice, because another thread may have dropped rows since.
        return next(iter(self._keys[best_row : best_row + 1]), None) if best_row >= 0 else None

    def similarity(self, key: bytes, vector: _Row) -> float:
        """The inner product with the row under this key; -1 when there is none."""
        row = self._rows.get(key)
        return -1.0 if row is None else float(self._row(row) @ vector)

    def copy(self, key: bytes) -> _Row | None:
        """The row under this key; None when there is none."""
        row = self._rows.get(key)
        return None if row is None else self._row(row).copy()

    def _row(self, row: int) -> _Row:
        return self._blocks[row // ROWS_PER_BLOCK].rows[row % ROWS_PER_BLOCK]
