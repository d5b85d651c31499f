"""One query from text to hits, over the json, asyncio and http packages."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import ChunkStoreClosed, CollectionMissing, IndexClosed, QueryInvalid
from membudget_engine.search import Answer, AnsweredBy, Hit, Search, Unanswered
from membudget_engine.settings import MAX_HITS, MAX_QUERY_CHARACTERS
from membudget_runtime.component import Ranking
from membudget_runtime.memory_runtime import MemoryRuntime


@pytest.fixture
def cache(runtime: MemoryRuntime) -> SemanticCache:
    """Empty."""
    return SemanticCache(runtime, HashingEmbedder().dimension)


@pytest.fixture
def search(small_data: Path, cache: SemanticCache) -> Iterator[Search]:
    """With an empty cache."""
    embedder = HashingEmbedder()
    collections = open_collections(small_data, embedder)
    catalog = Catalog(collections)
    yield Search(catalog, embedder, cache)
    catalog.close()


def _hits(search: Search, query: str, hits: int = 5) -> list[Hit]:
    return msgspec.json.decode(search.answer("small", query, hits).hits, type=list[Hit])


def _answered_by(search: Search, query: str, hits: int = 5) -> AnsweredBy:
    return search.answer("small", query, hits).answered_by


@pytest.mark.parametrize(
    ("query", "path", "name"),
    [
        ("JSONDecoder raw_decode document from string", "json/decoder.py", "JSONDecoder.raw_decode"),
        ("HTTPConnection putheader send a request header line", "http/client.py", "HTTPConnection.putheader"),
        ("wait for the single Future or coroutine to complete, with timeout", "asyncio/tasks.py", "wait_for"),
        ("acquire a lock: blocks until the lock is unlocked", "asyncio/locks.py", "Lock.acquire"),
    ],
)
def test_a_known_question_finds_its_chunk(search: Search, query: str, path: str, name: str) -> None:
    """R-E18: search."""
    assert (path, name) in [(hit.chunk.path, hit.chunk.name) for hit in _hits(search, query)]


def test_hits_come_best_first_with_their_source(search: Search) -> None:
    """R-E18: an agent needs no second call for the text."""
    hits = _hits(search, "JSONDecoder raw_decode document from string", 10)

    assert len(hits) == 10
    assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]
    first = hits[0].chunk
    assert first.source.lstrip().startswith(("def ", "class "))
    assert first == search.catalog.collections["small"].chunks.get_by_id(first.id)


def test_the_same_words_and_the_same_meaning_are_answered_from_the_cache(search: Search) -> None:
    """R-E06: the answer is the same to the byte, and each way is counted."""
    first = search.answer("small", "open a stream reader", 5)
    same_words = search.answer("small", "  open a\nstream reader", 5)
    same_meaning = search.answer("small", "Open the STREAM: Reader!", 5)

    assert [AnsweredBy.INDEX, AnsweredBy.SAME_WORDS, AnsweredBy.SAME_MEANING] == [
        answer.answered_by for answer in (first, same_words, same_meaning)
    ]
    assert bytes(first.hits) == bytes(same_words.hits) == bytes(same_meaning.hits)
    assert dict.fromkeys(AnsweredBy, 1) == search.answered


def test_another_number_of_hits_is_another_question(search: Search) -> None:
    """R-E06: five hits answer no question for ten."""
    assert len(_hits(search, "open a stream reader", 5)) == 5
    assert len(_hits(search, "open a stream reader", 10)) == 10


@pytest.mark.parametrize("query", ["???", "is it not", "\u2026 -- !"])
def test_a_query_without_words_finds_nothing_and_is_nobodys_answer(search: Search, query: str) -> None:
    """R-E06: its vector of zeros is as near to every chunk as to none."""
    assert _hits(search, query) == []
    assert _answered_by(search, "which are these") is AnsweredBy.INDEX
    assert _answered_by(search, "open a stream reader") is AnsweredBy.INDEX


@pytest.mark.parametrize(
    ("query", "hits"),
    [("", 5), (" \n", 5), ("x" * (MAX_QUERY_CHARACTERS + 1), 5), ("x", 0), ("x", -1), ("x", MAX_HITS + 1)],
)
def test_queries_out_of_bounds_are_refused(search: Search, query: str, hits: int) -> None:
    """R-E18: the caller's mistake, named."""
    with pytest.raises(QueryInvalid):
        search.answer("small", query, hits)


def test_the_largest_query_is_answered(search: Search) -> None:
    """R-E18: bounds are inclusive."""
    assert len(_hits(search, "x" * MAX_QUERY_CHARACTERS, MAX_HITS)) == MAX_HITS


def test_an_unknown_collection_is_named_with_those_there_are(search: Search) -> None:
    """R-E18: collections."""
    with pytest.raises(CollectionMissing, match="no collection 'large'; there are small"):
        search.answer("large", "parse", 5)


def test_a_query_that_meets_a_closed_collection_gets_a_typed_error(search: Search) -> None:
    """R-E17: never an answer of nothing; and what is cached is still answered."""
    cached = search.answer("small", "open a stream reader", 5)
    search.catalog.collections["small"].close()

    with pytest.raises((IndexClosed, ChunkStoreClosed)):
        search.answer("small", "parse a header", 5)
    assert bytes(cached.hits) == bytes(search.answer("small", "open a stream reader", 5).hits)


def test_an_answer_in_memory_is_known_without_anything_that_may_wait(search: Search) -> None:
    """R-E06, R-E21: neither index nor chunk store; a new question is handed on, a wrong one refused at once."""
    query = "open a stream reader"
    asked = search.known("small", query, 5)
    assert isinstance(asked, Unanswered)
    assert asked == Unanswered("small", query, 5, on_disk=False, found=False)
    first = search.found(asked)
    (segment,) = search.catalog.collections["small"].segments
    segment.index.close()
    segment.chunks.close()

    known = search.known("small", f" {query} ", 5)

    assert isinstance(known, Answer)
    assert (known.answered_by, bytes(known.hits)) == (AnsweredBy.SAME_WORDS, bytes(first.hits))
    assert search.answered == {AnsweredBy.INDEX: 1, AnsweredBy.SAME_WORDS: 1}
    with pytest.raises(QueryInvalid):
        search.known("small", " ", 5)
    with pytest.raises(CollectionMissing):
        search.known("other", query, 5)


def test_an_answer_that_was_spilled_is_not_read_where_nothing_may_wait(search: Search, cache: SemanticCache) -> None:
    """R-E06, R-E13: it is on disk, which is told and counts as no look-up; whoever may wait reads it."""
    query, ranking = "open a stream reader", Ranking()
    first = search.answer("small", query, 5)
    looked_up = cache.answers.counters.misses
    cache.answers.spill(1 << 30, ranking.priority("small"), ranking)

    asked = search.known("small", query, 5)

    assert isinstance(asked, Unanswered)
    assert asked == Unanswered("small", query, 5, on_disk=True, found=True)
    assert (cache.answers.counters.hits, cache.answers.counters.misses) == (0, looked_up)
    again = search.found(asked)
    assert (again.answered_by, bytes(again.hits)) == (AnsweredBy.SAME_WORDS, bytes(first.hits))
    assert (cache.answers.counters.hits, cache.answers.counters.misses) == (1, looked_up)
    assert isinstance(search.known("small", query, 5), Answer)
