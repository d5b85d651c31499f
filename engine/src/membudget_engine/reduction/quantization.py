"""One vector in a half or a quarter of its bytes, and back, by what stands in the bytes themselves.

Covers: float16, and int8 with the scale of its row stored before it. Does not cover vectors of an index, whose int8 has
a range for each dimension (`index.faiss_writer`), nor fewer dimensions (`pca`).
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

_Vector = npt.NDArray[np.float32]

_SCALE: Final = struct.Struct("<f")
_STEPS: Final = 127
"""Of int8 on either side of 0."""
_SMALLEST_STEP: Final = float(np.finfo(np.float32).tiny)
"""Smaller ones have few bits or none as float32: places would be more steps than int8 has. Such a vector is one of
zeros."""

LARGEST_FLOAT16: Final = float(np.finfo(np.float16).max)


class Quantization(Protocol):
    """How a vector is kept; each form says all that its inverse needs."""

    @property
    def name(self) -> str:
        """Stored beside what it made."""
        ...

    def row_bytes(self, dimension: int) -> int:
        """Of one vector."""
        ...

    def encoded(self, vector: _Vector) -> bytes:
        """The vector in this form. Values are finite and within float16's range."""
        ...

    def decoded(self, stored: bytes) -> _Vector:
        """The inverse: equal to the vector but for rounding."""
        ...


class Float16:
    """Half the bytes, eleven bits of every place."""

    name: str = "float16"

    def row_bytes(self, dimension: int) -> int:
        """Two for each place."""
        return dimension * np.dtype(np.float16).itemsize

    def encoded(self, vector: _Vector) -> bytes:
        """Rounded to the nearest."""
        return vector.astype(np.float16).tobytes()

    def decoded(self, stored: bytes) -> _Vector:
        """Exactly what was stored."""
        return np.frombuffer(stored, dtype=np.float16).astype(np.float32)


class Int8:
    """A quarter of the bytes: steps of a 127th of the row's largest place, which stands before them as float32."""

    name: str = "int8"

    def row_bytes(self, dimension: int) -> int:
        """One for each place, four for the scale."""
        return _SCALE.size + dimension

    def encoded(self, vector: _Vector) -> bytes:
        """Rounded to the nearest step: each place is off by half a step at most."""
        step = float(np.abs(vector).max(initial=0.0)) / _STEPS
        if step < _SMALLEST_STEP:
            step = 0.0
        # A vector of zeros has no step; any will do.
        steps = np.rint(vector / (step or 1.0)).astype(np.int8)
        return _SCALE.pack(step) + steps.tobytes()

    def decoded(self, stored: bytes) -> _Vector:
        """Steps times their size."""
        (step,) = _SCALE.unpack_from(stored)
        return np.frombuffer(stored, dtype=np.int8, offset=_SCALE.size).astype(np.float32) * np.float32(step)
