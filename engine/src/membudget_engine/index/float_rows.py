"""Covers files of float16 rows served from mappings: prefetching some rows, and the likeness of some to a query.

It does not cover which rows are candidates (compact), the pages as a whole (paged_file) nor writing (compact_build).
The file is rows and nothing else, so it starts on a page border and a row of 1 kB never lies on two pages.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexInvalid
from membudget_engine.index.page_advice import PageRange, advise, page_borders
from membudget_engine.index.row_prefetch import Ranges, RowPrefetch, pages_of

Positions = npt.NDArray[np.int64]
"""Numbers of rows in the order of the file, which is that of the inverted lists."""

FLOAT16_BYTES: Final = 2
MADV_RANDOM: Final = 1


class FloatRows:
    """count x dimension float16 of one file, mapped. Every method may be called from any thread."""

    def __init__(self, file: Path, count: int, dimension: int) -> None:
        """Raises IndexInvalid for a file of another size, OSError when it cannot be mapped."""
        self._row_bytes = dimension * FLOAT16_BYTES
        expected = count * self._row_bytes
        with file.open("rb") as stream:
            found = stream.seek(0, 2)
            if found != expected:
                raise IndexInvalid(f"{file} has {found} bytes, {count} rows of {dimension} are {expected}: rebuild it")
            mapping = mmap.mmap(stream.fileno(), found, access=mmap.ACCESS_READ)
        # One element is a whole row: numpy copies it as such, without the interpreter lock.
        self._rows = np.frombuffer(mapping, dtype=f"V{self._row_bytes}")
        self._decoder = faiss.ScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16)
        self.row_prefetch = RowPrefetch()
        start = int(self._rows.ctypes.data)
        self.range = PageRange(*page_borders(start, start + found))
        """Whole pages; the file may end before the last one does."""
        # What is needed is named row by row. Read-ahead around it would push out rows that other queries need.
        advise(self.range, MADV_RANDOM)

    def addresses(self, positions: Positions) -> Positions:
        """Where these rows begin; the position after the last gives the end."""
        return self.range.start + positions * self._row_bytes

    def likeness(self, query: Vectors, positions: Positions) -> Vectors:
        """As `likeness` of one file."""
        return likeness(query, [(self, positions)])

    def pages(self, positions: Positions) -> Ranges:
        """Those that each of these rows lies on."""
        return pages_of(self.addresses(positions), self._row_bytes)

    def encoded(self, positions: Positions) -> npt.NDArray[np.uint8]:
        """A copy of these rows, as they are in the file. Raises IndexError beyond the last."""
        return self._rows.take(positions).view(np.uint8).reshape(len(positions), self._row_bytes)

    def decoded(self, encoded: npt.NDArray[np.uint8]) -> Vectors:
        """Rows of this dimension as float32."""
        return self._decoder.decode(encoded)


Parts = Sequence[tuple[FloatRows, Positions]]
"""Some rows of each of some files of one dimension; at least one file."""


def prefetch(parts: Parts) -> None:
    """Has the pages of these rows read side by side, in one call; it does not wait for them. Raises OSError."""
    pages = [rows.pages(positions) for rows, positions in parts]
    parts[0][0].row_prefetch.ask(pages[0] if len(pages) == 1 else np.concatenate(pages))


def likeness(query: Vectors, parts: Parts) -> Vectors:
    """Inner products of one query, of shape (dimension,), with these rows, one file's after the other's.

    Raises IndexError beyond the last row of a file.
    """
    encoded = [rows.encoded(positions) for rows, positions in parts]
    return parts[0][0].decoded(encoded[0] if len(encoded) == 1 else np.concatenate(encoded)) @ query
