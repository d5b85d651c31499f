"""Covers a generation's file of vectors as a build reads it: some rows at a time, and the list each row belongs to.

It does not cover writing the file (build) nor what is made of its rows (faiss_writer, compact_build, recall).
"""

from collections.abc import Generator
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import FileDamaged
from membudget_engine.index.float_rows import MADV_RANDOM
from membudget_engine.index.page_advice import PageRange, advise, page_borders
from membudget_engine.index.row_prefetch import RowPrefetch, pages_of
from membudget_engine.requested_file import ask_for

ROWS_PER_BLOCK: Final = 10_000
"""At most, where rows are short."""
FLOAT_BYTES: Final = 4

_ROWS_PREFETCHED: Final = 1_000
_BLOCK_BYTES: Final = 2 * 1024 * 1024

_Int64 = npt.NDArray[np.int64]


def block_rows(dimension: int) -> int:
    """Rows that are copied, encoded or compared at once: 2 MB of them."""
    return max(1, _BLOCK_BYTES // (dimension * FLOAT_BYTES))


def row_blocks(
    vectors: Path, count: int, dimension: int, most_rows: int = ROWS_PER_BLOCK
) -> Generator[tuple[int, Vectors]]:
    """All rows in the order of the file, 2 MB or `most_rows` at a time: the number of a block's first row, the block.

    Read by request, the next block meanwhile (`requested_file`). Each block is a mapping of its own: pages of those
    that are done leave the resident set with it.

    Raises FileDamaged when the file ends before its rows, OSError.
    """
    step = min(block_rows(dimension), most_rows)
    step_bytes = step * dimension * FLOAT_BYTES
    with vectors.open("rb") as stream:
        ask_for(stream, 0, step_bytes)
        for first in range(0, count, step):
            block = _mapped(vectors, first, min(step, count - first), dimension)
            ask_for(stream, (first + step) * dimension * FLOAT_BYTES, step_bytes)
            yield first, block


def _mapped(vectors: Path, first: int, count: int, dimension: int) -> Vectors:
    """So many rows, without copying them and with nothing read that is not asked for."""
    offset = first * dimension * FLOAT_BYTES
    try:
        rows = np.memmap(vectors, dtype=np.float32, mode="r", offset=offset, shape=(count, dimension))
    except ValueError as error:
        raise FileDamaged(f"{vectors} ends before row {first + count}: rebuild the generation") from error
    begin = int(rows.ctypes.data)
    advise(PageRange(*page_borders(begin, begin + rows.nbytes)), MADV_RANDOM)
    return rows


class ScatteredRows:
    """Rows of the file in any order, each page read for itself and all of a block side by side.

    Raises FileDamaged when the file ends before its rows, OSError.
    """

    def __init__(self, vectors: Path, count: int, dimension: int) -> None:
        self._rows = _mapped(vectors, 0, count, dimension)
        self._row_bytes = dimension * FLOAT_BYTES
        self._start = int(self._rows.ctypes.data)
        self._prefetch = RowPrefetch()

    def __getitem__(self, rows: _Int64) -> Vectors:
        """A copy of these rows."""
        copied = np.empty((len(rows), self._rows.shape[1]), dtype=np.float32)
        step = min(_ROWS_PREFETCHED, block_rows(copied.shape[1]))
        for place in range(0, len(rows), step):
            block = rows[place : place + step]
            self._prefetch.ask(pages_of(self._start + block * self._row_bytes, self._row_bytes))
            copied[place : place + len(block)] = self._rows[block]
        return copied


def moved_to_means(vectors: Path, count: int, centroids: Vectors) -> Vectors:
    """Unit vectors, each towards the mean of the rows that it was the nearest of; one of no rows stays where it is.

    Raises FileDamaged when the file ends before its rows, OSError.
    """
    quantizer = faiss.IndexFlatIP(centroids.shape[1])
    quantizer.add(centroids)
    sums = np.zeros_like(centroids)
    for _, block in row_blocks(vectors, count, quantizer.d):
        nearest = quantizer.search(block, 1)[1][:, 0]
        order = np.argsort(nearest)
        lists, begins = np.unique(nearest[order], return_index=True)
        sums[lists] += np.add.reduceat(block[order], begins)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=centroids.copy(), where=lengths > 0)


def nearest_lists(vectors: Path, count: int, quantizer: faiss.Index) -> tuple[_Int64, Vectors]:
    """The nearest centroid of each row, and how alike they are; 12 bytes a row."""
    nearest = np.empty(count, dtype=np.int64)
    likeness = np.empty(count, dtype=np.float32)
    for first, block in row_blocks(vectors, count, quantizer.d):
        alike, found = quantizer.search(block, 1)
        nearest[first : first + len(block)] = found[:, 0]
        likeness[first : first + len(block)] = alike[:, 0]
    return nearest, likeness
