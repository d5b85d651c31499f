"""Vectors of fewer places: the principal components of a sample, how vectors are projected on them, and back.

Covers: fitting in batches, projecting rows and queries, the inverse, and the file that holds all of it. Does not cover
which vectors are sampled nor what is lost (`reducing`), nor fewer bits a place (`quantization`).

A row is kept as its difference from the mean along the components. The inner product of a query with the row that the
inverse gives is that of the projected query with the kept row, and the query's with the mean on top: one figure for all
rows of a query, so that the order is that of the kept rows alone and the score is still an inner product.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_engine.errors import FileDamaged

MAGIC: Final = b"MBREDUC1"
"""The last byte is the version."""

_HEAD: Final = struct.Struct("<8sIId")
_DIGEST_BYTES: Final = 32
_LARGEST_DIMENSION: Final = 65_536

_Rows = npt.NDArray[np.float32]
_Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """Components as rows, each of length 1 and at right angles to the others."""

    mean: _Rows
    components: _Rows
    explained: float
    """The share of the sample's variance that lies along the components."""

    @property
    def full_dimension(self) -> int:
        """Places of a vector before."""
        return len(self.mean)

    @property
    def dimension(self) -> int:
        """Places after."""
        return len(self.components)

    def rows(self, vectors: _Rows) -> _Rows:
        """Vectors of shape (n, full_dimension) as they are kept: (n, dimension)."""
        return np.ascontiguousarray((vectors - self.mean) @ self.components.T, dtype=np.float32)

    def query(self, vectors: _Rows) -> tuple[_Rows, float]:
        """One vector of shape (1, full_dimension) as rows are asked with, and what every score is to be raised by."""
        return np.ascontiguousarray(vectors @ self.components.T, dtype=np.float32), float(vectors[0] @ self.mean)

    def restored(self, rows: _Rows) -> _Rows:
        """The inverse: what is left of the vectors that these rows were."""
        return rows @ self.components + self.mean


class Fit:
    """Takes vectors in batches of any size; holds two squares of their dimension, whatever their number."""

    def __init__(self, full_dimension: int) -> None:
        self._count = 0
        self._sum: _Sums = np.zeros(full_dimension)
        self._products: _Sums = np.zeros((full_dimension, full_dimension))

    def add(self, vectors: _Rows) -> None:
        """Of shape (n, full_dimension)."""
        wide = vectors.astype(np.float64)
        self._count += len(wide)
        self._sum += wide.sum(axis=0)
        self._products += wide.T @ wide

    def reduction(self, dimension: int) -> Reduction:
        """To so many places, from all that was added."""
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance)
        components = vectors[:, ::-1][:, :dimension].T
        # An eigenvector has no sign of its own: the same sample gives the same file.
        largest = np.abs(components).argmax(axis=1)
        components = components * np.sign(components[np.arange(len(components)), largest])[:, None]
        whole = float(values.sum())
        explained = float(values[-dimension:].sum()) / whole if whole > 0 else 1.0
        kept = np.ascontiguousarray(components, dtype=np.float32)
        return Reduction(mean.astype(np.float32), kept, min(1.0, max(0.0, explained)))


def write_reduction(file: Path, reduction: Reduction) -> None:
    """Head, mean, components, then the sha256 of all of it; little-endian. Syncing is the builder's. Raises OSError."""
    head = _HEAD.pack(MAGIC, reduction.full_dimension, reduction.dimension, reduction.explained)
    content = head + _stored(reduction.mean) + _stored(reduction.components)
    file.write_bytes(content + hashlib.sha256(content).digest())


def read_reduction(file: Path) -> Reduction:
    """Its components stay in the file: they are mapped. Raises FileDamaged: missing, torn, or of another version."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD.size)
            full, kept = _dimensions(file, head)
            length = 4 * full * (kept + 1)
            body = stream.read(length)
            digest = stream.read(_DIGEST_BYTES + 1)
    except OSError as error:
        raise FileDamaged(f"{file} cannot be read ({error.strerror}): rebuild the generation") from error
    if len(body) != length or digest != hashlib.sha256(head + body).digest():
        raise FileDamaged(f"{file} is torn or changed: rebuild the generation")
    mean = np.frombuffer(body, dtype="<f4", count=full).astype(np.float32)
    components = np.memmap(file, dtype="<f4", mode="r", offset=_HEAD.size + mean.nbytes, shape=(kept, full))
    return Reduction(mean, components, _HEAD.unpack(head)[3])


def _dimensions(file: Path, head: bytes) -> tuple[int, int]:
    if len(head) != _HEAD.size or not head.startswith(MAGIC):
        raise FileDamaged(f"{file} is no reduction, or of another version: rebuild the generation")
    _, full, kept, _ = _HEAD.unpack(head)
    # Not to be trusted yet: nothing is allocated for more than such a file may have.
    if not 1 <= kept <= full <= _LARGEST_DIMENSION:
        raise FileDamaged(f"{file} tells of {kept} of {full} dimensions: rebuild the generation")
    return full, kept


def _stored(values: _Rows) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
