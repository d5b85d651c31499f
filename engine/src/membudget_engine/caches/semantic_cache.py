"""Answers to queries, found again for the same words and for nearly the same meaning.

Covers: look-up by exact words, then by similarity; bytes of answers and of their vectors in one component. Does
not cover searching (`search`) nor bounds (`membudget_runtime`): eviction takes answer and vector together.

An answer belongs to the generation it was found in (`Collection.tag`): one that a query in flight keeps after a reload
answers nobody.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_contract.profiles import SEMANTIC_CACHE
from membudget_engine.caches.vector_rows import VectorRows
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.memory_runtime import MemoryRuntime

SIMILAR_FROM: Final = 0.97
"""Inner product of unit vectors from which two queries count as the same question."""

TTL_SECONDS: Final = 3600.0

TAG_BYTES: Final = 8

_HITS_BYTES: Final = 2
_SHELF_BYTES: Final = TAG_BYTES + _HITS_BYTES
_DIGEST_BYTES: Final = 14

_KEY_BYTES: Final = _SHELF_BYTES + _DIGEST_BYTES

_ROW_EXTRA_BYTES: Final = _KEY_BYTES + 24
"""Of one row beside its vector: its key again, and its entry in the arena's table (`membudget_runtime.slots`)."""

_Vector = npt.NDArray[np.float32]


class SemanticCache:
    """Answers by collection, its generation, number of hits asked, and query. Thread-safe."""

    def __init__(self, runtime: MemoryRuntime, dimension: int) -> None:
        self._lock = runtime.ledger.lock
        self._dimension = dimension
        self._rows: dict[tuple[str, bytes], VectorRows] = {}
        self.answers = runtime.cache(
            SEMANTIC_CACHE,
            ttl_seconds=TTL_SECONDS,
            extra_entry_bytes=dimension * np.dtype(np.float32).itemsize + _ROW_EXTRA_BYTES,
            on_removed=self._forget,
        )

    def same_words(self, collection: str, tag: bytes, hits: int, query: str) -> bytes | None:
        """The answer to a query of the same words."""
        return self.answers.get(collection, query_key(tag, hits, query))

    def same_words_in_memory(self, collection: str, tag: bytes, hits: int, query: str) -> tuple[bytes | None, bool]:
        """The same where no disk is read for it; and whether `same_words` would read one."""
        key = query_key(tag, hits, query)
        on_disk = self.answers.is_on_disk(collection, key)
        return (None if on_disk else self.answers.get(collection, key)), on_disk

    def same_meaning(self, collection: str, tag: bytes, hits: int, vector: _Vector) -> bytes | None:
        """The answer to the most similar query, when it is similar enough."""
        rows = self._rows.get((collection, _shelf(tag, hits)))
        candidate = rows.best(vector) if rows is not None else None
        if rows is None or candidate is None:
            return None
        with self._lock:
            # The scan runs without the lock: the row may have moved or gone meanwhile.
            if rows.similarity(candidate, vector) < SIMILAR_FROM:
                return None
        return self.answers.get(collection, candidate)

    def keep(self, collection: str, tag: bytes, hits: int, query: str, vector: _Vector, answer: bytes) -> None:
        """Keep an answer, if there is room for it and its vector."""
        key = query_key(tag, hits, query)
        if self.answers.put(key, answer, collection):
            self._add_row(collection, key, vector)

    def is_of(self, key: bytes, tag: bytes) -> bool:
        """Whether the answer under this key was found in the generation of this tag."""
        return len(key) == _KEY_BYTES and key.startswith(tag)

    def vector(self, collection: str, key: bytes) -> _Vector | None:
        """A copy of the vector of the query whose answer this key holds."""
        with self._lock:
            rows = self._rows.get((collection, key[:_SHELF_BYTES]))
            return None if rows is None else rows.copy(key)

    def restore(self, kept: KeptEntry) -> bool:
        """Take back an answer of an earlier life with its vector, the attachment; False when it is of no use."""
        fits = len(kept.attachment) == self._dimension * np.dtype(np.float32).itemsize
        if not fits or not self.answers.restore(kept):
            return False
        self._add_row(kept.collection, kept.key, np.frombuffer(kept.attachment, dtype=np.float32))
        return True

    def _add_row(self, collection: str, key: bytes, vector: _Vector) -> None:
        with self._lock:
            if self.answers.holds(collection, key):
                shelf = (collection, key[:_SHELF_BYTES])
                self._rows.setdefault(shelf, VectorRows(self._dimension, _KEY_BYTES)).add(key, vector)

    def _forget(self, collection: str, key: bytes) -> None:
        shelf = (collection, key[:_SHELF_BYTES])
        rows = self._rows.get(shelf)
        if rows is None:
            return
        rows.remove(key)
        if not rows:
            del self._rows[shelf]


def query_key(tag: bytes, hits: int, query: str) -> bytes:
    """Under which the answer to a query is kept; `tag` is its generation's."""
    return _shelf(tag, hits) + _digest(query)


def _shelf(tag: bytes, hits: int) -> bytes:
    """What a key begins with: answers are alike only within one generation and number of hits."""
    return tag + hits.to_bytes(_HITS_BYTES)


def _digest(query: str) -> bytes:
    """Of the query without its spacing; a whole key has 24 bytes, which the heap rounds to no more than 16.

    Case stays: HTTPServer is two words to an embedder, httpserver one. What differs only in case and means the same
    is found by its vector.
    """
    words = " ".join(query.split())
    return hashlib.blake2b(words.encode(), digest_size=_DIGEST_BYTES).digest()
