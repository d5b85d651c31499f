"""One query from text to hits, over the json, asyncio and http packages."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from engine.page_cache import drop_from_page_cache
from membudget_contract.decoding import decode_json
from membudget_engine.caches.found_rows import packed_rows
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import ChunkStoreClosed, CollectionMissing, IndexClosed, QueryInvalid
from membudget_engine.index.manifest import read_manifest, write_manifest
from membudget_engine.search import Answer, AnsweredBy, Hit, Search, Unanswered
from membudget_engine.settings import MAX_HITS, MAX_QUERY_CHARACTERS
from membudget_engine.stores.chunk_texts import TEXTS_FILE
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
    assert first == search.catalog.collections["small"].chunk(first.id)


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
    """R-E17: never an answer of nothing, whether it was known or not."""
    search.answer("small", "open a stream reader", 5)
    search.catalog.collections["small"].close()

    for query in ("parse a header", "open a stream reader"):
        with pytest.raises((IndexClosed, ChunkStoreClosed)):
            search.answer("small", query, 5)


@pytest.mark.usefixtures("page_cache_tells")
def test_an_answer_in_memory_is_known_without_anything_that_may_wait(search: Search) -> None:
    """R-E06, R-E21: neither index nor chunk store; a new question is handed on, a wrong one refused at once."""
    query, tag = "open a stream reader", search.catalog.collections["small"].tag
    asked = search.known("small", query, 5)
    assert isinstance(asked, Unanswered)
    assert asked == Unanswered("small", query, 5, tag, rows=None, on_disk=False)
    assert not asked.found
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


def test_a_known_answer_whose_texts_are_not_in_memory_is_put_together_where_a_disk_may_be_waited_for(
    search: Search,
) -> None:
    """R-E06, R-E18: what was found is handed on, and neither embedder nor index are asked again."""
    query = "open a stream reader"
    first = search.answer("small", query, 5)
    (segment,) = search.catalog.collections["small"].segments
    drop_from_page_cache(segment.folder.directory / TEXTS_FILE)
    segment.index.close()

    asked = search.known("small", query, 5)

    assert isinstance(asked, Unanswered)
    assert (asked.found, asked.on_disk) == (True, False)
    again = search.found(asked)
    assert (again.answered_by, bytes(again.hits)) == (AnsweredBy.SAME_WORDS, bytes(first.hits))


def test_a_generation_of_a_version_without_texts_is_answered_from_to_the_byte(
    search: Search, small_data: Path, tmp_path: Path
) -> None:
    """R-E17: an upgrade serves what it finds; where nothing may wait, such an answer is handed on."""
    query, embedder = "open a stream reader", HashingEmbedder()
    older = shutil.copytree(small_data, tmp_path / "older")
    (directory,) = (older / "small").iterdir()
    manifest = read_manifest(directory)
    (directory / TEXTS_FILE).unlink()
    files = {name: entry for name, entry in manifest.files.items() if name != TEXTS_FILE}
    write_manifest(directory, msgspec.structs.replace(manifest, files=files))

    with (
        closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime,
        closing(Catalog(open_collections(older, embedder))) as catalog,
    ):
        upgraded = Search(catalog, embedder, SemanticCache(runtime, embedder.dimension))
        first = upgraded.answer("small", query, 5)
        known = upgraded.known("small", query, 5)

        assert bytes(first.hits) == bytes(search.answer("small", query, 5).hits)
        assert isinstance(known, Unanswered)
        assert known.found
        assert bytes(first.hits) == bytes(upgraded.found(known).hits)


def test_what_was_found_in_what_was_served_before_answers_nothing(search: Search) -> None:
    """R-P09: a reload or a write between the look and the worker gives the rows other meanings."""
    query = "open a stream reader"
    stale = Unanswered("small", query, 5, b"8 others", rows=packed_rows([(0.5, 0)]), on_disk=False)

    found = search.found(stale)

    assert (found.answered_by, len(decode_json(bytes(found.hits), list[Hit]))) == (AnsweredBy.INDEX, 5)


def test_an_answer_shows_chunks_as_they_are_encoded(search: Search) -> None:
    """R-E18: put together of texts, it is byte for byte what a list of hits is."""
    answer = search.answer("small", "open a stream reader", 5)

    hits = decode_json(bytes(answer.hits), list[Hit])
    assert len(hits) == 5
    assert bytes(answer.hits) == msgspec.json.encode(hits)


def test_an_answer_that_was_spilled_is_not_read_where_nothing_may_wait(search: Search, cache: SemanticCache) -> None:
    """R-E06, R-E13: it is on disk, which is told and counts as no look-up; whoever may wait reads it."""
    query, hits, ranking = "open a stream reader", MAX_HITS, Ranking()
    first = search.answer("small", query, hits)
    looked_up = cache.answers.counters.misses
    cache.answers.spill(1 << 30, ranking.priority("small"), ranking)

    asked = search.known("small", query, hits)

    assert isinstance(asked, Unanswered)
    assert asked == Unanswered("small", query, hits, search.catalog.collections["small"].tag, rows=None, on_disk=True)
    assert asked.found
    assert (cache.answers.counters.hits, cache.answers.counters.misses) == (0, looked_up)
    again = search.found(asked)
    assert (again.answered_by, bytes(again.hits)) == (AnsweredBy.SAME_WORDS, bytes(first.hits))
    assert (cache.answers.counters.hits, cache.answers.counters.misses) == (1, looked_up)
    known = search.known("small", query, hits)
    assert isinstance(known, Answer) or (known.rows is not None and not known.on_disk)
