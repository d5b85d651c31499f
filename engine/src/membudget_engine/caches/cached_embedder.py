"""An embedder that asks the embedding cache first.

Covers: vectors for queries, whatever form the cache has them in, and for rows of collections, which must be the
embedder's own. Does not cover the cache (`embedding_cache`) nor embedders (`embedder`, `http_embedder`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from membudget_contract.policy import DEFAULT_COLLECTION
from membudget_engine.caches.embedding_cache import EmbeddingCache
from membudget_engine.embedder import Embedder, Vectors


class CachedEmbedder:
    """An `Embedder` over another one. Thread-safe where that one is."""

    def __init__(self, embedder: Embedder, cache: EmbeddingCache) -> None:
        """The cache was made for this embedder's name and dimension."""
        self._embedder = embedder
        self._cache = cache

    @property
    def name(self) -> str:
        """The inner one's: the vectors are."""
        return self._embedder.name

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._embedder.dimension

    @property
    def worth_keeping(self) -> bool:
        """They are kept here."""
        return False

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the inner embedder, to the last bit: for rows that stay. Raises as it does."""
        return self._vectors(texts, DEFAULT_COLLECTION, exact=True)

    def embed_query(self, text: str, collection: str) -> Vectors:
        """Shape (1, dimension), equal to the inner embedder's but for the rounding of the cache. Raises as it does."""
        return self._vectors([text], collection, exact=False)

    def _vectors(self, texts: Sequence[str], collection: str, *, exact: bool) -> Vectors:
        known = [self._cache.get(text, exact=exact) for text in texts]
        # In the order in which they were first met: a text that comes twice is embedded once.
        missing = list(dict.fromkeys(text for text, vector in zip(texts, known, strict=True) if vector is None))
        if not missing:
            return np.stack([vector for vector in known if vector is not None]) if known else self._embedder.embed([])
        new = dict(zip(missing, self._embedder.embed(missing), strict=True))
        for text, vector in new.items():
            self._cache.put(text, vector, collection)
        return np.stack([new[text] if vector is None else vector for text, vector in zip(texts, known, strict=True)])
