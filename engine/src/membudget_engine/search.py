"""Answers queries: cache first, then embedding, index and chunks.

Covers: one query from text to hits with their source, and counting. Does not cover HTTP (`search_api`). Runs in
worker threads: every method may be called from any of them.
"""

from __future__ import annotations

import enum
import threading
from collections import Counter
from typing import Final

import msgspec

from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection
from membudget_engine.embedder import Embedder
from membudget_engine.errors import QueryInvalid
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
    """Searches the collections of a catalog."""

    def __init__(self, catalog: Catalog, embedder: Embedder, cache: SemanticCache) -> None:
        self.catalog = catalog
        self.answered: Counter[AnsweredBy] = Counter()
        self._embedder = embedder
        self._cache = cache
        self._counting = threading.Lock()

    def answer(self, collection: str, query: str, hits: int) -> Answer:
        """The best `hits` chunks.

        Raises:
            CollectionMissing: no such collection.
            QueryInvalid: an empty or overlong query, or more hits than are allowed.
        """
        with self.catalog.use(collection) as opened:
            answered_by, encoded = self._checked_answer(opened, query, hits)
        with self._counting:
            self.answered[answered_by] += 1
        return Answer(collection, answered_by, msgspec.Raw(encoded))

    def chunk(self, collection: str, chunk: str) -> Chunk | None:
        """The chunk of that id; None when there is none. Raises CollectionMissing."""
        with self.catalog.use(collection) as opened:
            return opened.chunks.get_by_id(chunk)

    def _checked_answer(self, opened: Collection, query: str, hits: int) -> tuple[AnsweredBy, bytes]:
        if not 1 <= hits <= MAX_HITS:
            raise QueryInvalid(f"{hits} hits asked; ask for 1 to {MAX_HITS}")
        if not query.strip() or len(query) > MAX_QUERY_CHARACTERS:
            raise QueryInvalid(f"a query has 1 to {MAX_QUERY_CHARACTERS} characters, not {len(query)}")
        return self._answer(opened, query, hits)

    def _answer(self, collection: Collection, query: str, hits: int) -> tuple[AnsweredBy, bytes]:
        known = self._cache.same_words(collection.name, collection.tag, hits, query)
        if known is not None:
            return AnsweredBy.SAME_WORDS, known
        vector = self._embedder.embed([query])
        if not vector.any():
            # Only signs or stop words: as near to every chunk and every former query as to none.
            return AnsweredBy.INDEX, _NO_HITS
        known = self._cache.same_meaning(collection.name, collection.tag, hits, vector[0])
        if known is not None:
            return AnsweredBy.SAME_MEANING, known
        scores, rows = collection.index.search(vector, hits)
        found = [(float(score), int(row)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]
        chunks = collection.chunks.get([row for _, row in found])
        encoded = msgspec.json.encode([Hit(score, chunk) for (score, _), chunk in zip(found, chunks, strict=True)])
        self._cache.keep(collection.name, collection.tag, hits, query, vector[0], encoded)
        return AnsweredBy.INDEX, encoded
