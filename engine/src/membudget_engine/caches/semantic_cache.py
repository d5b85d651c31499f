"""Answers to queries, found again for the same words and for nearly the same meaning.

Covers: what was found for a query (`found_rows`), by its exact words, then by similarity, with its vector as one value;
its bytes and those of the vectors' sketches in one component. Does not cover searching (`search`), keys
(`answer_keys`), sketches (`sketches`) nor bounds (`membudget_runtime`): eviction takes what was found, vector and
sketch together. A whole answer would have five times the bytes, and is put together anew sooner than it is inflated
(`stores.chunk_texts`).
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_contract.profiles import SEMANTIC_CACHE
from membudget_engine.caches.answer_keys import KEY_BYTES, SHELF_BYTES, TAG_BYTES, query_key, shelf
from membudget_engine.caches.sketches import SKETCH_BYTES, Sketches
from membudget_engine.reduction.quantization import Int8
from membudget_runtime.cache import BoundedCache
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.errors import SpillDamaged
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.packing import unpacked_from_disk

SIMILAR_FROM: Final = 0.97
"""Inner product of unit vectors from which two queries count as the same question; the kept one is rounded to int8,
which moves it by some thousandths."""

TTL_SECONDS: Final = 3600.0

MOST_BYTES: Final = 256 * 1024
"""Of what was found with its vector: a thousand hits have 12 kB, 8,192 places as int8 as many."""

_SKETCH_BYTES: Final = SKETCH_BYTES + KEY_BYTES + 24
"""With its key, and its entry in the arena's table (`membudget_runtime.slots`)."""

_INT8: Final = Int8()
_LENGTH: Final = struct.Struct("<H")
"""Of the vector, which stands before what was found."""

_Vector = npt.NDArray[np.float32]


class SemanticCache:
    """Answers by collection, its generation, number of hits asked, and query. Thread-safe."""

    def __init__(self, runtime: MemoryRuntime, dimension: int) -> None:
        self._ledger = runtime.ledger
        self._dimension = dimension
        self._sketches: dict[tuple[str, bytes], Sketches] = {}
        self.answers: BoundedCache[bytes] = runtime.cache(
            SEMANTIC_CACHE,
            ttl_seconds=TTL_SECONDS,
            extra_entry_bytes=_SKETCH_BYTES,
            on_removed=self._forget,
        )

    def in_memory(self, collection: str, tag: bytes, hits: int, query: str) -> tuple[bytes | None, bool]:
        """What was found for a query of the same words, where that is in memory; and whether it is on disk instead."""
        key = query_key(tag, hits, query)
        on_disk = self.answers.state(collection, key).on_disk
        value = None if on_disk else self.answers.get(collection, key)
        return None if value is None else found_in(value), on_disk

    def same_words(self, collection: str, tag: bytes, hits: int, query: str) -> bytes | None:
        """The same from the disk too. What is not there is no miss: `in_memory` counted it."""
        key = query_key(tag, hits, query)
        value = self.answers.get(collection, key) if self.answers.state(collection, key).kept else None
        return None if value is None else found_in(value)

    def same_meaning(self, collection: str, tag: bytes, hits: int, vector: _Vector) -> bytes | None:
        """What was found for the most similar query, if it is similar enough. Of those on disk one at most is read."""
        sketches = self._sketches.get((collection, shelf(tag, hits)))
        best, best_score = None, SIMILAR_FROM
        read: tuple[bytes, bytes | None] | None = None
        for key in [] if sketches is None else sketches.near(vector):
            value = self.answers.peek(collection, key)
            if value is None and read is None and self.answers.state(collection, key).on_disk:
                value = self.answers.get(collection, key)
                read = key, value
            # Its own vector is asked, not the sketch that led here: that may have moved or gone meanwhile.
            score = -1.0 if value is None else float(self._vector_in(value) @ vector)
            if score >= best_score:
                best, best_score = key, score
        if best is None:
            return None
        value = read[1] if read is not None and read[0] == best else self.answers.get(collection, best)
        return None if value is None else found_in(value)

    def keep(self, collection: str, tag: bytes, hits: int, query: str, vector: _Vector, found: bytes) -> None:
        """Keep what was found, if there is room for it and its vector."""
        key = query_key(tag, hits, query)
        if self.answers.put(key, _value(vector, found), collection):
            self._add_sketch(collection, key, vector)

    def is_of(self, key: bytes, tag: bytes) -> bool:
        """Whether the answer under this key was found in the generation of this tag."""
        return len(key) == KEY_BYTES and key.startswith(tag)

    def restore(self, kept: KeptEntry) -> bool:
        """Take back an answer of an earlier life; False when it is of no use."""
        try:
            vector = self._vector_in(kept_value(kept))
        except (SpillDamaged, zlib.error, struct.error, ValueError):
            return False
        if len(vector) != self._dimension or not np.isfinite(vector).all() or not self.answers.restore(kept):
            return False
        self._add_sketch(kept.collection, kept.key, vector)
        return True

    def _vector_in(self, value: bytes) -> _Vector:
        (length,) = _LENGTH.unpack_from(value)
        stored = value[_LENGTH.size : _LENGTH.size + length]
        row_bytes = _INT8.row_bytes(self._dimension)
        # Bounded: a damaged one may inflate to anything.
        return _INT8.decoded(stored if length == row_bytes else zlib.decompressobj().decompress(stored, row_bytes + 1))

    def _add_sketch(self, collection: str, key: bytes, vector: _Vector) -> None:
        with self._ledger.lock:
            if not self.answers.holds(collection, key):
                return
            self._leave_former_shelves(collection, key)
            with suppress(OSError, MemoryError):  # a guard of the process is nearer: it is found by its words alone
                self._sketches.setdefault((collection, key[:SHELF_BYTES]), Sketches(self._dimension, KEY_BYTES)).add(
                    key, vector
                )

    def _leave_former_shelves(self, collection: str, key: bytes) -> None:
        """A shelf has pages of its own, and each write makes another tag: nobody asks those of former ones."""
        if (collection, key[:SHELF_BYTES]) not in self._sketches:
            for place in [*self._sketches]:
                if place[0] == collection and not place[1].startswith(key[:TAG_BYTES]):
                    del self._sketches[place]

    def _forget(self, collection: str, key: bytes) -> None:
        place = (collection, key[:SHELF_BYTES])
        sketches = self._sketches.get(place)
        if sketches is None:
            return
        sketches.remove(key)
        if not sketches:
            del self._sketches[place]


def kept_value(kept: KeptEntry) -> bytes:
    """The value of an entry of another life. Raises SpillDamaged."""
    return unpacked_from_disk(kept.stored, MOST_BYTES) if kept.packed else kept.stored


def found_in(value: bytes) -> bytes:
    """What was found, of a kept value."""
    (length,) = _LENGTH.unpack_from(value)
    return value[_LENGTH.size + length :]


def _value(vector: _Vector, found: bytes) -> bytes:
    rounded = _INT8.encoded(vector)
    # Of a question's few words most places are zero: a quarter is left.
    # As it is where both are as long: its length tells it from a compressed one.
    stored = min(rounded, zlib.compress(rounded, 1), key=len)
    return _LENGTH.pack(len(stored)) + stored + found
