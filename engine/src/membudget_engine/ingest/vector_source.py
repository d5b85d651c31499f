"""Covers files of vectors alone: .npy (two dimensions, float16 to float64) and .fvecs, read from a mapping.

It does not cover documents that carry vectors (document_source). Nothing is unpickled: an .npy file of objects is
refused by its header, before anything else of it is read.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import SourceInvalid
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.record import Extent, Record

MAX_DIMENSION: Final = 65_536
ROWS_PER_BLOCK: Final = 256
"""Mapped anew for each block, so that pages that were read leave the resident set."""

_FLOAT_BYTES: Final = 4
_HEADER_BYTES: Final = 10_000
"""numpy's own bound of a header that it parses."""


class VectorSource:
    """A file of rows; positions are row numbers."""

    def __init__(self, file: Path) -> None:
        """Raises SourceInvalid for a file that is no such thing, OSError."""
        self._file = file
        status = file.stat()
        self._type, self._offset, self._columns, rows = (
            _npy(file, status.st_size) if file.suffix == ".npy" else _fvecs(file, status.st_size)
        )
        self._prefix = 0 if file.suffix == ".npy" else 1
        identity = f"{file.name} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
        self.extent = Extent(identity, rows, self._columns - self._prefix)

    def records(self, position: int) -> Iterator[Record]:
        """A chunk for each row that says nothing but its number."""
        for first in range(position, self.extent.end, ROWS_PER_BLOCK):
            for row, vector in enumerate(self._block(first), first):
                yield Record(_chunk(self._file.name, row), row + 1, vector)

    def _block(self, first: int) -> Vectors:
        shape = min(ROWS_PER_BLOCK, self.extent.end - first), self._columns
        offset = self._offset + first * self._columns * self._type.itemsize
        block = cast(
            "npt.NDArray[np.float64]", np.memmap(self._file, dtype=self._type, mode="r", offset=offset, shape=shape)
        )
        if self._prefix:
            dimensions = block[:, 0].view(np.int32)
            if (dimensions != self._columns - 1).any():
                raise SourceInvalid(f"{self._file}: rows {first} to {first + len(block)} are not all of one dimension")
            block = block[:, 1:]
        with np.errstate(over="ignore"):
            vectors = block.astype(np.float32)
        if not np.isfinite(vectors).all():
            raise SourceInvalid(f"{self._file}: rows {first} to {first + len(block)} have a value that is no float32")
        return vectors


def _npy(file: Path, size: int) -> tuple[np.dtype[np.floating], int, int, int]:
    """Type, offset of the first row, columns and rows. Raises SourceInvalid."""
    with file.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, kind = read(stream, max_header_size=_HEADER_BYTES)
        except (ValueError, EOFError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            raise SourceInvalid(f"{file} is no .npy file: {error}") from None
        offset = stream.tell()
    if len(shape) != 2 or fortran_order or kind.kind != "f" or kind.itemsize > 8:  # noqa: PLR2004  rows of float64 at most
        order = "columns" if fortran_order else "rows"
        raise SourceInvalid(f"{file} has {kind} of shape {shape} by {order}: rows of floats are taken")
    rows, columns = shape
    if not 1 <= columns <= MAX_DIMENSION or not rows or size != offset + rows * columns * kind.itemsize:
        raise SourceInvalid(f"{file} has {size} bytes, which are not {rows} rows of {columns} {kind}")
    return cast("np.dtype[np.floating]", kind), offset, columns, rows


def _fvecs(file: Path, size: int) -> tuple[np.dtype[np.floating], int, int, int]:
    """As `_npy`; the first column is the number of the others."""
    with file.open("rb") as stream:
        head = stream.read(4)
    dimension = struct.unpack("<i", head)[0] if len(head) == 4 else 0  # noqa: PLR2004  an int32
    if not 1 <= dimension <= MAX_DIMENSION or size % ((dimension + 1) * _FLOAT_BYTES):
        raise SourceInvalid(f"{file} is no .fvecs file: {size} bytes are not rows of {dimension} places")
    return np.dtype("<f4"), 0, dimension + 1, size // ((dimension + 1) * _FLOAT_BYTES)


def _chunk(file: str, row: int) -> Chunk:
    return Chunk(str(row), file, f"row {row}", "vector", "", "", (), "", row, row)
