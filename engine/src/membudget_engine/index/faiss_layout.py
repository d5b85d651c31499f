"""Covers walking an index file's fields before FAISS maps it: each is what the manifest asks for, and there they end.

It does not cover the sha256, which comes before (manifest.verify), nor what FAISS makes of the file (faiss_reader).

FAISS 1.15 counts an item of a mapped file as read when only a part of it is there, and its next read reaches out of
the mapping: SIGSEGV, which no exception handler sees. Where all sizes add up to the file's own this cannot be. The
layouts are those of its `impl/index_write.cpp`; numbers are little-endian.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from membudget_engine.errors import IndexInvalid
from membudget_engine.index.manifest import IndexType, Manifest

FOURCC: Final[dict[IndexType, bytes]] = {"Flat": b"IxFI", "IVFFlat": b"IwFl", "Scalar": b"IxSQ", "IVFScalar": b"IwSq"}
"""First bytes of the only index types that FAISS is let at."""

_CODE_BYTES: Final = {"Exact": 4, "Float16": 2, "Int8": 1}
"""Of one place of a vector."""
_INNER_PRODUCT: Final = 0
_SIZE: Final = 8
_FLOAT: Final = 4
_ID: Final = 8


def check_layout(file: Path, manifest: Manifest) -> None:
    """Raises IndexInvalid when the file is not laid out as an index of this manifest, OSError."""
    with file.open("rb") as stream:
        if (found := stream.read(4)) != FOURCC[manifest.index_type]:
            raise IndexInvalid(f"{file} begins with {found!r}, which is no {manifest.index_type} index: rebuild it")
        walk = _Walk(file, stream)
        walk.head(manifest.dimension, manifest.count)
        code_bytes = manifest.dimension * _CODE_BYTES[manifest.representation]
        scalar = manifest.index_type in {"Scalar", "IVFScalar"}
        if manifest.nlist:
            walk.centroids(manifest)
        if scalar:
            walk.quantizer(manifest, code_bytes)
        if not manifest.nlist:
            walk.fields("Q", manifest.count * (code_bytes if scalar else manifest.dimension))
            walk.over(manifest.count * code_bytes)
        else:
            if scalar:
                walk.fields("QB", code_bytes, None)
            walk.lists(manifest, code_bytes)
        walk.end()


class _Walk:
    """From where a file is read to its end, in steps that it has."""

    def __init__(self, file: Path, stream: BinaryIO) -> None:
        self._file = file
        self._stream = stream
        self._left = os.fstat(stream.fileno()).st_size - stream.tell()

    def fields(self, types: str, *expected: object) -> None:
        """The next fields, of these types of `struct`; None expects nothing."""
        found = struct.unpack(f"<{types}", self._read(struct.calcsize(f"<{types}")))
        if any(value is not None and value != one for value, one in zip(expected, found, strict=True)):
            raise IndexInvalid(f"{self._file} has {found} where {expected} belongs: rebuild it")

    def head(self, dimension: int, count: int) -> None:
        """What every index begins with; another metric would bring a field more."""
        self.fields("iqqqBi", dimension, count, None, None, 1, _INNER_PRODUCT)

    def centroids(self, manifest: Manifest) -> None:
        """Numbers of lists, the flat index of their centroids, and a map that is not there."""
        self.fields("QQ", manifest.nlist, manifest.nprobe)
        self.fields("4s", FOURCC["Flat"])
        self.head(manifest.dimension, manifest.nlist)
        self.fields("Q", manifest.nlist * manifest.dimension)
        self.over(manifest.nlist * manifest.dimension * _FLOAT)
        self.fields("BQ", 0, 0)

    def quantizer(self, manifest: Manifest, code_bytes: int) -> None:
        """How places become codes, with their ranges for Int8."""
        trained = 2 * manifest.dimension if manifest.representation == "Int8" else 0
        self.fields("iifQQQ", None, None, None, manifest.dimension, code_bytes, trained)
        self.over(trained * _FLOAT)

    def lists(self, manifest: Manifest, code_bytes: int) -> None:
        """Their sizes, for all of them or for those that hold something, then codes and ids of each."""
        self.fields("4sQQ", b"ilar", manifest.nlist, code_bytes)
        kind, numbers = struct.unpack("<4sQ", self._read(4 + _SIZE))
        if kind not in {b"full", b"sprs"} or numbers > 2 * manifest.nlist:
            raise IndexInvalid(f"{self._file} has sizes of kind {kind!r} for {numbers} lists: rebuild it")
        told = np.frombuffer(self._read(numbers * _SIZE), dtype="<u8")
        sizes = told if kind == b"full" else told[1::2]
        numbered = len(told) == manifest.nlist if kind == b"full" else bool((told[::2] < manifest.nlist).all())
        if not numbered or sizes.max(initial=0) > manifest.count or sizes.sum() != manifest.count:
            raise IndexInvalid(f"{self._file} has lists of other sizes than its {manifest.count} vectors: rebuild it")
        self.over(manifest.count * (code_bytes + _ID))

    def over(self, byte_count: int) -> None:
        """Past so many bytes that are not looked at."""
        self._take(byte_count)
        self._stream.seek(byte_count, os.SEEK_CUR)

    def end(self) -> None:
        """Nothing may follow."""
        if self._left:
            raise IndexInvalid(f"{self._file} has {self._left} bytes more than its fields say: rebuild it")

    def _read(self, byte_count: int) -> bytes:
        self._take(byte_count)
        return self._stream.read(byte_count)

    def _take(self, byte_count: int) -> None:
        if byte_count > self._left:
            raise IndexInvalid(f"{self._file} ends {byte_count - self._left} bytes too early: rebuild it")
        self._left -= byte_count
