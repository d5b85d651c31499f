"""Sketches of vectors, 16 bytes each: which of many kept vectors may be near one, without looking at them.

Covers: a sketch under each key, and the keys whose sketches are near. Does not cover the vectors themselves nor what is
near enough (`semantic_cache`), where sketches lie (`membudget_runtime.slots`) nor when they go: that follows the
cache's evictions. Not thread-safe but for `near`, which may run beside changes: its caller looks at the vectors.

A sketch holds on which side of 128 random planes its vector lies (Charikar, STOC 2002): each plane parts two vectors
with a probability of their angle over pi. Of two with an inner product of 0.97 that are 10 of 128, and more than
`FAR_BITS` once in a million; of unrelated ones half of all.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_runtime.slots import Block, SlotArena

PLANES: Final = 128
SKETCH_BYTES: Final = PLANES // 8
FAR_BITS: Final = 25
"""Of 17,000 questions to the standard library one other is at most so far from the next one."""
MOST_NEAR: Final = 8
"""Looked at by the caller: those with the nearest sketches."""

_SEED: Final = 20

_Row = npt.NDArray[np.float32]


class Sketches:
    """Sketches of vectors of one dimension, each under a key; all keys have `key_bytes`."""

    def __init__(self, dimension: int, key_bytes: int) -> None:
        self._dimension = dimension
        self._slots = SlotArena(SKETCH_BYTES, key_bytes)

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, key: bytes, vector: _Row) -> None:
        """Add the sketch of a vector, or replace the one under this key."""
        self._slots.put(key, _sketch(vector))

    def remove(self, key: bytes) -> None:
        """Drop a sketch, if there is one; its pages go back."""
        self._slots.remove(key)

    def near(self, vector: _Row) -> list[bytes]:
        """Keys of the nearest sketches, at most MOST_NEAR, the nearest first; as far as none moved meanwhile."""
        asked = np.frombuffer(_sketch(vector), dtype=np.uint64)
        count, per_block = len(self._slots), self._slots.rows_per_block
        found: list[tuple[int, int]] = []
        for number, block in enumerate(tuple(self._slots.blocks)):
            used = min(per_block, count - number * per_block)
            if used <= 0:
                break
            bits = _bits_apart(block, used, asked)
            rows = np.flatnonzero(bits <= FAR_BITS)
            found += zip(bits[rows].tolist(), (rows + number * per_block).tolist(), strict=True)
        keys = (self._key_at(row) for _, row in sorted(found)[:MOST_NEAR])
        return [key for key in keys if key is not None]

    def _key_at(self, row: int) -> bytes | None:
        try:
            return self._slots.key_at(row)
        except IndexError:
            return None  # another thread has dropped its whole block since


def _bits_apart(block: Block, used: int, asked: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    # The view keeps the block mapped, also when it is dropped while this scan reads it.
    words = np.frombuffer(block.memory, dtype=np.uint64, count=used * len(asked)).reshape(used, -1)
    first, second = (np.bitwise_count(words[:, place] ^ asked[place]) for place in range(len(asked)))
    return first + second


def _sketch(vector: _Row) -> bytes:
    return np.packbits(vector @ _planes(len(vector)) > 0).tobytes()


@cache
def _planes(dimension: int) -> Vectors:
    """The same in every process."""
    return np.random.default_rng(_SEED).standard_normal((dimension, PLANES), dtype=np.float32)
