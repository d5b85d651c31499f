"""Answers to queries, found again for the same words and for nearly the same meaning.

Covers: look-up by exact words, then by similarity; bytes of answers and of their vectors in one component. Does
not cover searching (`search`) nor bounds (`membudget_runtime`): eviction takes answer and vector together.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_contract.profiles import SEMANTIC_CACHE
from membudget_engine.caches.vector_rows import VectorRows
from membudget_runtime.memory_runtime import MemoryRuntime

SIMILAR_FROM: Final = 0.97
"""Inner product of unit vectors from which two queries count as the same question."""

TTL_SECONDS: Final = 3600.0

_ROW_HEAP_BYTES: Final = 160
"""Heap bytes of one row: its place in a dict and in a list, and its number."""


class SemanticCache:
    """Answers by collection, number of hits asked, and query. Thread-safe."""

    def __init__(self, runtime: MemoryRuntime, dimension: int) -> None:
        self._lock = runtime.ledger.lock
        self._dimension = dimension
        self._rows: dict[tuple[str, int], VectorRows] = {}
        self.answers = runtime.cache(
            SEMANTIC_CACHE,
            ttl_seconds=TTL_SECONDS,
            extra_entry_bytes=dimension * np.dtype(np.float32).itemsize + _ROW_HEAP_BYTES,
            on_removed=self._forget,
        )

    def same_words(self, collection: str, hits: int, query: str) -> bytes | None:
        """The answer to a query of the same words."""
        return self.answers.get(collection, _key(hits, query))

    def same_meaning(self, collection: str, hits: int, vector: npt.NDArray[np.float32]) -> bytes | None:
        """The answer to the most similar query, when it is similar enough."""
        rows = self._rows.get((collection, hits))
        candidate = rows.best(vector) if rows is not None else None
        if rows is None or candidate is None:
            return None
        with self._lock:
            # The scan runs without the lock: the row may have moved or gone meanwhile.
            if rows.similarity(candidate, vector) < SIMILAR_FROM:
                return None
        return self.answers.get(collection, candidate)

    def keep(self, collection: str, hits: int, query: str, vector: npt.NDArray[np.float32], answer: bytes) -> None:
        """Keep an answer, if there is room for it and its vector."""
        key = _key(hits, query)
        if not self.answers.put(key, answer, collection):
            return
        with self._lock:
            if self.answers.holds(collection, key):
                self._rows.setdefault((collection, hits), VectorRows(self._dimension)).add(key, vector)

    def _forget(self, collection: str, key: bytes) -> None:
        shelf = (collection, int.from_bytes(key[:2]))
        rows = self._rows.get(shelf)
        if rows is None:
            return
        rows.remove(key)
        if not rows:
            del self._rows[shelf]


def _key(hits: int, query: str) -> bytes:
    """16 bytes: the number of hits, and a digest of the query without its spacing.

    Case stays: HTTPServer is two words to an embedder, httpserver one. What differs only in case and means the same
    is found by its vector.
    """
    words = " ".join(query.split())
    return hits.to_bytes(2) + hashlib.blake2b(words.encode(), digest_size=14).digest()
