"""Covers a generation's file of vectors as a build reads it: some rows at a time, and the list each row belongs to.

It does not cover writing the file (build) nor what is made of its rows (faiss_writer, compact_build, recall).
"""

from pathlib import Path
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import FileDamaged
from membudget_engine.index.float_rows import MADV_RANDOM
from membudget_engine.index.page_advice import PAGE_BYTES, PageRange, advise
from membudget_engine.index.row_prefetch import RowPrefetch

ROWS_PER_BATCH: Final = 10_000

FLOAT_BYTES: Final = 4

_ROWS_PREFETCHED: Final = 1_000
_BLOCK_BYTES: Final = 2 * 1024 * 1024

_Int64 = npt.NDArray[np.int64]


def block_rows(dimension: int) -> int:
    """Rows that are copied, encoded or compared at once: 2 MB of them."""
    return max(1, _BLOCK_BYTES // (dimension * FLOAT_BYTES))


def mapped_rows(vectors: Path, first: int, rows: int, dimension: int) -> Vectors:
    """So many rows from the first on, without copying them.

    Mapped anew for each call: pages of batches that are done leave the resident set with their mapping.
    Raises FileDamaged when the file ends before them, OSError.
    """
    offset = first * dimension * FLOAT_BYTES
    try:
        return np.memmap(vectors, dtype=np.float32, mode="r", offset=offset, shape=(rows, dimension))
    except ValueError as error:
        raise FileDamaged(f"{vectors} ends before row {first + rows}: rebuild the generation") from error


class ScatteredRows:
    """Rows of the file in any order, each page read for itself and all of a block side by side.

    What the kernel reads ahead around a row, up to 8 MB, would push out what is still needed where memory is short.
    """

    def __init__(self, vectors: Path, count: int, dimension: int) -> None:
        self._rows = mapped_rows(vectors, 0, count, dimension)
        self._row_bytes = dimension * FLOAT_BYTES
        self._start = int(self._rows.ctypes.data)
        self._prefetch = RowPrefetch()
        end = self._start + self._rows.nbytes
        advise(PageRange(self._start, -(-end // PAGE_BYTES) * PAGE_BYTES), MADV_RANDOM)

    def __getitem__(self, rows: _Int64) -> Vectors:
        """A copy of these rows."""
        copied = np.empty((len(rows), self._rows.shape[1]), dtype=np.float32)
        for place in range(0, len(rows), _ROWS_PREFETCHED):
            block = rows[place : place + _ROWS_PREFETCHED]
            first = self._start + block * self._row_bytes
            begin = first // PAGE_BYTES * PAGE_BYTES
            end = -(-(first + self._row_bytes) // PAGE_BYTES) * PAGE_BYTES
            self._prefetch.ask(begin, end - begin)
            copied[place : place + len(block)] = self._rows[block]
        return copied


def nearest_lists(vectors: Path, count: int, quantizer: faiss.Index) -> _Int64:
    """The nearest centroid of each row; 8 bytes a row."""
    nearest = np.empty(count, dtype=np.int64)
    for first in range(0, count, ROWS_PER_BATCH):
        rows = min(ROWS_PER_BATCH, count - first)
        _, found = quantizer.search(mapped_rows(vectors, first, rows, quantizer.d), 1)
        nearest[first : first + rows] = found[:, 0]
    return nearest
