"""Answers queries: caches first, then embedding, index and chunks.

Covers: one query from text to hits with their source, and counting. Does not cover HTTP (`search_api`). Every method
may be called from any thread; `known` is the one for a loop, as it waits for no disk and reads little.
"""

from __future__ import annotations

import enum
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from membudget_engine.caches.found_rows import FoundRow, packed_rows, unpacked_rows
from membudget_engine.caches.query_cache import QueryCache
from membudget_engine.caches.response_cache import ResponseCache
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import Collection
from membudget_engine.embedder import GIVEN, QueryEmbedder
from membudget_engine.errors import QueryInvalid
from membudget_engine.index.effort import Effort
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.query_room import QueryRoom
from membudget_engine.settings import MAX_HITS, MAX_QUERY_CHARACTERS
from membudget_engine.stores.chunk_texts import Text

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


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question that cannot be answered from memory alone."""

    collection: str
    query: str
    hits: int
    tag: bytes
    """Of the collection as it was looked at."""
    rows: bytes | None
    """What was found for the same words before, where that is in memory."""
    on_disk: bool
    """Whether it was spilled."""

    @property
    def found(self) -> bool:
        """Whether the caches know what answers it: then it takes neither embedder nor index."""
        return self.rows is not None or self.on_disk


class Search:
    """Searches the collections of a catalog."""

    def __init__(
        self,
        catalog: Catalog,
        embedder: QueryEmbedder,
        cache: SemanticCache,
        queries: QueryCache | None = None,
        responses: ResponseCache | None = None,
        room: QueryRoom | None = None,
    ) -> None:
        """Without `queries` and `responses` the semantic cache alone remembers; without `room` all are let in."""
        self.room = room
        self.catalog = catalog
        self._queries = queries
        self._responses = responses
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
        known = self.known(collection, query, hits)
        return known if isinstance(known, Answer) else self.found(known)

    def known(self, collection: str, query: str, hits: int) -> Answer | Unanswered:
        """The answer, where memory has what was found for the same words and its texts. Raises as `answer`."""
        with self.catalog.use(collection) as opened:
            _check_question(opened, query, hits)
            tag = opened.tag
            rows, on_disk = self._cache.in_memory(collection, tag, hits, query)
            if rows is None and self._queries is not None:
                rows = self._queries.same_query(collection, tag, hits, query)
            answer = None if rows is None else _held(opened, unpacked_rows(rows))
        if answer is None:
            return Unanswered(collection, query, hits, tag, rows, on_disk)
        return self._counted(collection, AnsweredBy.SAME_WORDS, answer)

    def recalled(self, asked: Unanswered) -> Answer | None:
        """The answer from what the caches know by now, and the disk; None when they know none. Raises as `answer`."""
        with self.catalog.use(asked.collection) as opened:
            _check_question(opened, asked.query, asked.hits)
            tag = opened.tag
            rows = asked.rows if asked.tag == tag else None
            if rows is None:
                rows = self._cache.same_words(asked.collection, tag, asked.hits, asked.query)
            if rows is None:
                return None
            encoded = _encoded(opened, unpacked_rows(rows))
        return self._counted(asked.collection, AnsweredBy.SAME_WORDS, encoded)

    def found(self, asked: Unanswered) -> Answer:
        """The answer, at last from embedder and index. Raises as `answer`."""
        # Others may have asked the same while this waited for a worker.
        answer = self.recalled(asked)
        if answer is not None:
            return answer
        with self.catalog.use(asked.collection) as opened:
            _check_question(opened, asked.query, asked.hits)
            answered_by, encoded = self._found(opened, asked.query, asked.hits)
        return self._counted(asked.collection, answered_by, encoded)

    def nearest(self, collection: str, vector: Sequence[float], hits: int) -> Answer:
        """The `hits` chunks nearest to a vector; nothing of it is cached. Raises as `answer`."""
        with self.catalog.use(collection) as opened:
            _check_hits(hits)
            asked = np.asarray([vector], dtype=np.float32)
            if not np.isfinite(asked).all():
                raise QueryInvalid("a vector has NaN or infinity, or a value that no float32 can hold")
            with self._effort(opened, hits) as effort:
                encoded = _encoded(opened, opened.find(asked, hits, effort))
        return self._counted(collection, AnsweredBy.INDEX, encoded)

    def chunk_body(self, collection: str, chunk: str) -> bytes | None:
        """The encoded chunk of that id; None when there is none. Raises CollectionMissing."""
        with self.catalog.use(collection) as opened:
            # Once, and first: a chunk that is written anew meanwhile is kept under the former tag.
            tag = opened.tag
            known = None if self._responses is None else self._responses.get(collection, tag, chunk)
            if known is not None:
                return known
            found = opened.chunk(chunk)
            if found is None:
                return None
            body = msgspec.json.encode(found)
            if self._responses is not None:
                self._responses.keep(collection, tag, chunk, body)
            return body

    def _found(self, collection: Collection, query: str, hits: int) -> tuple[AnsweredBy, bytes]:
        # Once: what is written while this query runs makes another tag, and its answer stays under this one.
        tag = collection.tag
        vector = self._embedder.embed_query(query, collection.name)
        if not vector.any():
            # Only signs or stop words: as near to every chunk and every former query as to none.
            return AnsweredBy.INDEX, _NO_HITS
        known = self._cache.same_meaning(collection.name, tag, hits, vector[0])
        if known is not None:
            return AnsweredBy.SAME_MEANING, _encoded(collection, unpacked_rows(known))
        with self._effort(collection, hits) as effort:
            found = collection.find(vector, hits, effort)
            encoded = _encoded(collection, found)
        if effort is not Effort.FULL:
            # A poorer answer is not kept for those who ask when there is room again.
            return AnsweredBy.INDEX, encoded
        rows = packed_rows(found)
        if self._queries is not None:
            self._queries.keep(collection.name, tag, hits, query, rows)
        self._cache.keep(collection.name, tag, hits, query, vector[0], rows)
        return AnsweredBy.INDEX, encoded

    def _effort(self, collection: Collection, hits: int) -> AbstractContextManager[Effort]:
        """Raises NoRoom."""
        return nullcontext(Effort.FULL) if self.room is None else self.room.admitted(collection.query_bytes(hits))

    def _counted(self, collection: str, answered_by: AnsweredBy, encoded: bytes) -> Answer:
        with self._counting:
            self.answered[answered_by] += 1
        return Answer(collection, answered_by, msgspec.Raw(encoded))


def _check_question(opened: Collection, query: str, hits: int) -> None:
    _check_hits(hits)
    if opened.manifest.embedder.startswith(GIVEN):
        raise QueryInvalid(f"{opened.name} holds vectors that were given to it: ask with a vector")
    if not query.strip() or len(query) > MAX_QUERY_CHARACTERS:
        raise QueryInvalid(f"a query has 1 to {MAX_QUERY_CHARACTERS} characters, not {len(query)}")


def _check_hits(hits: int) -> None:
    if not 1 <= hits <= MAX_HITS:
        raise QueryInvalid(f"{hits} hits asked; ask for 1 to {MAX_HITS}")


def _encoded(collection: Collection, found: Sequence[FoundRow]) -> bytes:
    return _hits(found, collection.texts_at([row for _, row in found]))


def _held(collection: Collection, found: Sequence[FoundRow]) -> bytes | None:
    texts = collection.held_texts_at([row for _, row in found])
    return None if texts is None else _hits(found, texts)


def _hits(found: Sequence[FoundRow], texts: Sequence[Text | None]) -> bytes:
    """As msgspec encodes a list of `Hit`. A chunk deleted since it was found is no hit."""
    pairs = zip(found, texts, strict=True)
    return b"[%s]" % b",".join(
        [
            b'{"score":%s,"chunk":%s}' % (msgspec.json.encode(score), text)
            for (score, _), text in pairs
            if text is not None
        ]
    )
