"""Covers vectors alone: .npy (two dimensions, float16 to float64) and .fvecs, read some rows at a time.

It does not cover documents that carry vectors (document_source). Nothing is unpickled: an .npy file of objects is
refused by its header, before anything else of it is read.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.errors import SourceInvalid
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.record import Extent, Record
from membudget_engine.requested_file import BLOCK_BYTES, opened_by_request

MAX_DIMENSION: Final = 65_536
ROWS_PER_BLOCK: Final = 256
FLOAT_BYTES: Final = 4
_HEADER_BYTES: Final = 10_000
"""numpy's own bound of a header that it parses."""


class VectorSource:
    """A file of rows; positions are row numbers."""

    def __init__(self, file: Path) -> None:
        """Raises SourceInvalid for a file that is no such thing, OSError."""
        self._file = file
        status = file.stat()
        with opened_by_request(file) as stream:
            self._layout = read_layout(file.name, stream)
        rows = (status.st_size - self._layout.offset) // self._layout.row_bytes
        if self._layout.rows not in {None, rows} or not rows or self._layout.bytes_of(rows) != status.st_size:
            raise SourceInvalid(f"{file.name} has {status.st_size} bytes, which are not rows as its header has them")
        identity = f"{file.name} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
        self.extent = Extent(identity, rows, self._layout.dimension)

    def records(self, position: int) -> Iterator[Record]:
        """A chunk for each row that says nothing but its number."""
        with opened_by_request(self._file) as stream:
            stream.seek(self._layout.bytes_of(position))
            yield from self._layout.records(self._file.name, stream, position)


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows stand one after the other."""

    kind: np.dtype[np.floating]
    dimension: int
    prefixed: bool
    """Whether each row begins with its dimension."""
    offset: int = 0
    """Of the first row."""
    rows: int | None = None
    """As the header has it; None without one."""

    @property
    def row_bytes(self) -> int:
        """Of one."""
        return (self.dimension + self.prefixed) * self.kind.itemsize

    def bytes_of(self, rows: int) -> int:
        """Of so many rows, with what stands before the first one."""
        return self.offset + rows * self.row_bytes

    def records(self, name: str, stream: BinaryIO, row: int, read: bytes = b"") -> Iterator[Record]:
        """From this row on, where the stream stands behind what was `read` of it already.

        Raises SourceInvalid where it is torn, has a value that is no float32 or, prefixed, another dimension.
        """
        at_once = max(1, min(ROWS_PER_BLOCK, BLOCK_BYTES // self.row_bytes))
        while block := read + stream.read(self._bytes_at_once(at_once, row) - len(read)):
            read = b""
            if len(block) % self.row_bytes:
                raise SourceInvalid(f"{name} ends within a row after {row + len(block) // self.row_bytes}: it is torn")
            for vector in self._vectors(name, block, row):
                row += 1
                yield Record(_chunk(name, row - 1), row, vector)
        if self.rows not in {None, row}:
            raise SourceInvalid(f"{name} ends after {row} of {self.rows} rows: it is torn")

    def _bytes_at_once(self, rows: int, row: int) -> int:
        """Behind the last row one byte more: what comes there is refused, not left unread."""
        left = rows if self.rows is None else self.rows - row
        return min(rows, left) * self.row_bytes if left > 0 else 1

    def _vectors(self, name: str, block: bytes, row: int) -> Vectors:
        rows = np.frombuffer(block, dtype=self.kind).reshape(-1, self.dimension + self.prefixed)
        last = row + len(rows)
        if self.prefixed:
            if (rows[:, 0].view(np.int32) != self.dimension).any():
                raise SourceInvalid(f"{name}: rows {row} to {last} are not all of one dimension")
            rows = rows[:, 1:]
        with np.errstate(over="ignore"):
            vectors = rows.astype(np.float32)
        if not np.isfinite(vectors).all():
            raise SourceInvalid(f"{name}: rows {row} to {last} have a value that is no float32")
        return vectors


def read_layout(name: str, stream: BinaryIO) -> Layout:
    """How the rows of a file stand, which is read from its beginning. Raises SourceInvalid."""
    if name.endswith(".npy"):
        return replace(_npy(name, stream), offset=stream.tell())
    return _fvecs(name, stream.read(FLOAT_BYTES))


def read_on(name: str, stream: BinaryIO, row: int = 0) -> Iterator[Record]:
    """The rows of a stream from its beginning, which for .fvecs may be any row. Raises SourceInvalid."""
    if name.endswith(".npy"):
        yield from _npy(name, stream).records(name, stream, row)
    else:
        head = stream.read(FLOAT_BYTES)
        if head or not row:  # behind the last row nothing has to come
            yield from _fvecs(name, head).records(name, stream, row, head)


def _npy(name: str, stream: BinaryIO) -> Layout:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, kind = read(stream, max_header_size=_HEADER_BYTES)
    except (ValueError, EOFError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise SourceInvalid(f"{name} is no .npy file: {error}") from None
    if len(shape) != 2 or fortran_order or kind.kind != "f" or kind.itemsize > 8:  # noqa: PLR2004  rows of float64 at most
        order = "columns" if fortran_order else "rows"
        raise SourceInvalid(f"{name} has {kind} of shape {shape} by {order}: rows of floats are taken")
    rows, columns = shape
    if not 1 <= columns <= MAX_DIMENSION or rows < 1:
        raise SourceInvalid(f"{name} has {rows} rows of {columns} places: 1 to {MAX_DIMENSION} places are taken")
    return Layout(cast("np.dtype[np.floating]", kind), columns, prefixed=False, rows=rows)


def _fvecs(name: str, head: bytes) -> Layout:
    dimension = struct.unpack("<i", head)[0] if len(head) == FLOAT_BYTES else 0
    if not 1 <= dimension <= MAX_DIMENSION:
        raise SourceInvalid(f"{name} is no .fvecs file: its first row has {dimension} places")
    return Layout(np.dtype("<f4"), dimension, prefixed=True)


def _chunk(file: str, row: int) -> Chunk:
    return Chunk(str(row), file, f"row {row}", "vector", "", "", (), "", row, row)
