"""Covers a file of float16 rows served from a mapping: prefetching some rows, and the nearest of them to a query.

It does not cover which rows are candidates (compact), the pages as a whole (paged_file) nor writing (compact_build).
The file is rows and nothing else, so it starts on a page border and a row of 1 kB never lies on two pages.
"""

import mmap
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.page_advice import PAGE_BYTES, PageRange, advise

Positions = npt.NDArray[np.int64]

MADV_RANDOM = 1
MADV_WILLNEED = 3
FLOAT16_BYTES = 2


class FloatRows:
    """count x dimension float16 of one file, mapped. Every method may be called from any thread."""

    def __init__(self, file: Path, count: int, dimension: int) -> None:
        """Raises IndexInvalid for a file of another size, OSError when it cannot be mapped."""
        expected = count * dimension * FLOAT16_BYTES
        with file.open("rb") as stream:
            found = stream.seek(0, 2)
            if found != expected:
                raise IndexInvalid(f"{file} has {found} bytes, {count} rows of {dimension} are {expected}: rebuild it")
            mapping = mmap.mmap(stream.fileno(), found, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(mapping, dtype=np.float16).reshape(count, dimension)
        # Vectors of bytes that stand for one row each: numpy copies them whole, without a look at their numbers.
        self._whole_rows = self._rows.view(f"V{dimension * FLOAT16_BYTES}")[:, 0]
        self._decoder = faiss.ScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16)
        self._row_bytes = dimension * FLOAT16_BYTES
        start = int(self._rows.ctypes.data)
        self.range = PageRange(start, start + -(-found // PAGE_BYTES) * PAGE_BYTES)
        """Whole pages: the last may hold less than is mapped of it."""
        # What is asked for is named row by row; read-ahead around it would push out rows that somebody needs.
        advise(self.range, MADV_RANDOM)

    def addresses(self, positions: Positions) -> Positions:
        """Where these rows begin."""
        return self.range.start + positions * self._row_bytes

    def prefetch(self, positions: Positions) -> None:
        """Has the pages of these rows, in ascending order, read side by side; it does not wait. Raises OSError."""
        first = positions * self._row_bytes // PAGE_BYTES
        end = -(-(positions + 1) * self._row_bytes // PAGE_BYTES)
        breaks = np.flatnonzero(first[1:] > end[:-1]) + 1
        starts = self.range.start + first[np.insert(breaks, 0, 0)] * PAGE_BYTES
        ends = self.range.start + end[np.append(breaks - 1, len(end) - 1)] * PAGE_BYTES
        for start, stop in zip(starts.tolist(), ends.tolist(), strict=True):
            advise(PageRange(start, stop), MADV_WILLNEED)

    def likeness(self, query: Vectors, positions: Positions) -> Vectors:
        """Inner products of one query, of shape (dimension,), with these rows."""
        gathered = self._whole_rows.take(positions).view(np.uint8).reshape(len(positions), self._row_bytes)
        decoded: Vectors = self._decoder.decode(gathered)
        return decoded @ query
