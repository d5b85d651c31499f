"""Answers queries: cache first, then embedding, index and chunks.

Covers: one query from text to hits with their source, and counting. Does not cover HTTP (`search_api`). Runs in
worker threads: every method may be called from any of them.
"""

from __future__ import annotations

import enum
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.collection import Collection
from membudget_engine.embedder import Embedder
from membudget_engine.errors import CollectionMissing, QueryInvalid
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.settings import MAX_HITS, MAX_QUERY_CHARACTERS

_NO_HITS: Final = b"[]"


class AnsweredBy(enum.StrEnum):
    """Where an answer came from."""

    SAME_WORDS = "same_words"
    SAME_MEANING = "same_meaning"
    INDEX = "index"


class Hit(msgspec.Struct, frozen=True):
    """One chunk found, with its source text; `score` is the inner product of unit vectors."""

    score: float
    chunk: Chunk


class Answer(msgspec.Struct, frozen=True):
    """The hits of one query, best first, already encoded."""

    collection: str
    answered_by: AnsweredBy
    hits: msgspec.Raw


class Search:
    """Searches open collections."""

    def __init__(self, collections: Mapping[str, Collection], embedder: Embedder, cache: SemanticCache) -> None:
        self.collections = collections
        self.answered: Counter[AnsweredBy] = Counter()
        self._embedder = embedder
        self._cache = cache
        self._counting = threading.Lock()

    def collection(self, name: str) -> Collection:
        """The open collection of that name; raises CollectionMissing."""
        collection = self.collections.get(name)
        if collection is None:
            raise CollectionMissing(f"no collection {name!r}; there are {', '.join(self.collections)}")
        return collection

    def answer(self, collection: str, query: str, hits: int) -> Answer:
        """The best `hits` chunks.

        Raises:
            CollectionMissing: no such collection.
            QueryInvalid: an empty or overlong query, or more hits than are allowed.
        """
        opened = self.collection(collection)
        if not 1 <= hits <= MAX_HITS:
            raise QueryInvalid(f"{hits} hits asked; ask for 1 to {MAX_HITS}")
        if not query.strip() or len(query) > MAX_QUERY_CHARACTERS:
            raise QueryInvalid(f"a query has 1 to {MAX_QUERY_CHARACTERS} characters, not {len(query)}")
        answered_by, encoded = self._answer(opened, query, hits)
        with self._counting:
            self.answered[answered_by] += 1
        return Answer(collection, answered_by, msgspec.Raw(encoded))

    def _answer(self, collection: Collection, query: str, hits: int) -> tuple[AnsweredBy, bytes]:
        known = self._cache.same_words(collection.name, hits, query)
        if known is not None:
            return AnsweredBy.SAME_WORDS, known
        vector = self._embedder.embed([query])
        if not vector.any():
            # Only signs or stop words: as near to every chunk and every former query as to none.
            return AnsweredBy.INDEX, _NO_HITS
        known = self._cache.same_meaning(collection.name, hits, vector[0])
        if known is not None:
            return AnsweredBy.SAME_MEANING, known
        scores, rows = collection.index.search(vector, hits)
        found = [(float(score), int(row)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]
        chunks = collection.chunks.get([row for _, row in found])
        encoded = msgspec.json.encode([Hit(score, chunk) for (score, _), chunk in zip(found, chunks, strict=True)])
        self._cache.keep(collection.name, hits, query, vector[0], encoded)
        return AnsweredBy.INDEX, encoded
