"""The same question again, and the same chunk again: answered without index or store, and never across generations."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from control_socket import ask
from engine.engine_process import EngineProcess
from membudget_contract import control_api as api
from membudget_contract import metric_names
from membudget_contract.plan import CollectionPlan
from membudget_contract.policy import Priority
from membudget_engine.build_command import build_sources
from membudget_engine.caches import query_cache, response_cache
from membudget_engine.caches.found_rows import FoundRow, packed_rows, unpacked_rows
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.metrics import EngineCollector
from membudget_engine.rooms import Rooms
from membudget_engine.search import AnsweredBy, Search
from membudget_runtime.bounds import start_budgets
from membudget_runtime.memory_runtime import MemoryRuntime

QUERY = "open a stream reader"
TAG, OTHER_TAG = b"8 bytes.", b"8 others"


@pytest.fixture
def rooms(runtime: MemoryRuntime) -> Iterator[Rooms]:
    """Empty."""
    with closing(Rooms(runtime, HashingEmbedder(), {})) as rooms:
        yield rooms


@pytest.fixture
def search(small_data: Path, rooms: Rooms) -> Iterator[Search]:
    """With all its caches."""
    embedder = HashingEmbedder()
    with closing(Catalog(open_collections(small_data, embedder))) as catalog:
        yield Search(catalog, embedder, rooms.semantic, rooms.queries, rooms.responses)


def test_an_identical_query_is_answered_from_the_query_cache(search: Search, rooms: Rooms) -> None:
    """R-E06: to the byte, when the semantic cache has let go of it too, and without looking into the index."""
    first = search.answer("small", QUERY, 5)
    rooms.semantic.answers.clear()
    search.catalog.collections["small"].segments[0].index.close()

    again = search.answer("small", f"  {QUERY} ", 5)

    assert (again.answered_by, bytes(again.hits)) == (AnsweredBy.SAME_WORDS, bytes(first.hits))
    assert rooms.queries.kept.counters.hits == 1


def test_a_known_question_takes_neither_index_nor_chunk_store(search: Search, rooms: Rooms) -> None:
    """R-E06: to the byte, by words and by meaning; what the larger room knows, the smaller one is not asked for."""
    first = search.answer("small", QUERY, 5)
    (segment,) = search.catalog.collections["small"].segments
    segment.index.close()
    segment.chunks.close()

    again = [search.answer("small", query, 5) for query in (QUERY, "Open a STREAM: reader!")]

    assert [(answer.answered_by, bytes(answer.hits)) for answer in again] == [
        (AnsweredBy.SAME_WORDS, bytes(first.hits)),
        (AnsweredBy.SAME_MEANING, bytes(first.hits)),
    ]
    assert rooms.queries.kept.counters.hits == 0


def test_what_was_found_costs_a_tenth_of_the_answer(search: Search, rooms: Rooms) -> None:
    """R-E06: rows, scores and a vector of int8."""
    answer = search.answer("small", QUERY, 50)

    (use,) = rooms.semantic.answers.collections()
    assert (use.entries, use.owned_bytes < 1600 < len(bytes(answer.hits)) / 10) == (1, True)


@pytest.mark.parametrize("found", [[], [(0.5, 3), (-0.25, 70_000_000_000)]])
def test_found_rows_come_back_as_they_were(found: list[FoundRow]) -> None:
    """R-E06: twelve bytes a hit."""
    assert (unpacked_rows(packed_rows(found)), len(packed_rows(found))) == (found, 12 * len(found))


def test_it_keeps_rows_a_hundredth_of_the_answer(search: Search, rooms: Rooms) -> None:
    """R-E06: so that nothing is gained by evicting from it."""
    answer = search.answer("small", QUERY, 50)

    (use,) = rooms.queries.kept.collections()
    assert use.owned_bytes < 1000 < len(bytes(answer.hits)) / 20


def test_five_hits_answer_no_question_for_ten_and_no_collection_for_another(rooms: Rooms) -> None:
    """R-E06: nor one generation for the next."""
    rooms.queries.keep("core", TAG, 5, QUERY, b"rows")

    assert rooms.queries.same_query("core", TAG, 5, f" {QUERY}\n") == b"rows"
    assert rooms.queries.same_query("core", TAG, 10, QUERY) is None
    assert rooms.queries.same_query("core", OTHER_TAG, 5, QUERY) is None
    assert rooms.queries.same_query("other", TAG, 5, QUERY) is None
    assert rooms.queries.same_query("core", TAG, 5, QUERY.upper()) is None


def test_a_hundred_queries_stay_and_fifty_of_one_collection(rooms: Rooms) -> None:
    """R-E06, R-E22: 100 of the engine, 50 of a collection, three minutes; 50 responses for five."""
    for collection in ("a", "b", "c"):
        for number in range(60):
            rooms.queries.keep(collection, TAG, 5, f"{collection} {number}", b"rows")
            rooms.responses.keep(collection, TAG, str(number), b"body")

    kept = rooms.queries.kept
    assert (len(kept), [kept.entries_of(name) for name in "abc"]) == (100, [0, 50, 50])
    assert len(rooms.responses.kept) == 50
    assert (query_cache.TTL_SECONDS, response_cache.TTL_SECONDS) == (180.0, 300.0)


def test_a_policy_sets_how_many(rooms: Rooms, runtime: MemoryRuntime) -> None:
    """R-E22, R-P05: `maxCachedQueries` and `maxLoadedFiles` of the engine and of one collection, live."""
    core = CollectionPlan(name="core", priority=Priority.HIGH, max_loaded_files=7, max_cached_queries=200)
    held = start_budgets({"MEMBUDGET_TOTAL": "4Gi"})

    runtime.apply(msgspec.structs.replace(held, collections=(core,), max_cached_queries=300, max_loaded_files=9))

    counts = (rooms.queries.kept.counts, rooms.files.kept.counts)
    assert [(count.in_all, count.of("core"), count.of("other")) for count in counts] == [(300, 200, 50), (9, 7, 9)]


def test_a_bound_by_bytes_holds_beside_the_number(rooms: Rooms) -> None:
    """R-E06: fifty responses of 200 kB are more than two megabytes."""
    for number in range(50):
        rooms.responses.keep("core", TAG, str(number), random.Random(number).randbytes(200_000))

    assert 5 < len(rooms.responses.kept) < 11
    assert rooms.responses.kept.owned_bytes() <= response_cache.MAX_BYTES


def test_a_chunk_is_encoded_once(search: Search, rooms: Rooms) -> None:
    """R-E06: and a chunk that is not there is not remembered as missing."""
    (hit,) = msgspec.json.decode(search.answer("small", QUERY, 1).hits)
    wanted = hit["chunk"]["id"]
    body = search.chunk_body("small", wanted)
    search.catalog.collections["small"].segments[0].chunks.close()

    assert search.chunk_body("small", wanted) == body
    assert (rooms.responses.kept.counters.hits, len(rooms.responses.kept)) == (1, 1)


class _Dear(HashingEmbedder):
    """Its vectors as a server's: worth keeping."""

    @property
    def worth_keeping(self) -> bool:
        return True


@pytest.mark.parametrize(("embedder", "left"), [(_Dear(), {"embeddingCache": 1}), (HashingEmbedder(), {})])
def test_what_left_with_its_generation_is_in_no_room(
    small_data: Path, runtime: MemoryRuntime, embedder: HashingEmbedder, left: dict[str, int]
) -> None:
    """R-E06, R-P09: a reload drops the collection's answers everywhere; vectors stay (R-E03), where they are dear."""
    with (
        closing(Rooms(runtime, embedder, {})) as rooms,
        closing(Catalog(open_collections(small_data, embedder))) as catalog,
    ):
        search = Search(catalog, rooms.embedder, rooms.semantic, rooms.queries, rooms.responses)
        (hit,) = msgspec.json.decode(search.answer("small", QUERY, 1).hits)
        search.chunk_body("small", hit["chunk"]["id"])
        held = (rooms.semantic.answers, rooms.queries.kept, rooms.responses.kept)
        assert [1, 1, 1] == [len(cache) for cache in held]

        rooms.forget("small")

        assert {cache.name: len(cache) for cache in rooms.caches if len(cache)} == left


def test_every_room_has_its_metrics(search: Search, rooms: Rooms, runtime: MemoryRuntime) -> None:
    """R-E06, R-E10: entries, hits, misses, evictions, refusals, bytes."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(search, rooms.caches, runtime))
    search.answer("small", QUERY, 5)
    rooms.semantic.answers.clear()
    search.answer("small", QUERY, 5)

    counters = (metric_names.ENGINE_CACHE_ENTRIES, metric_names.ENGINE_CACHE_HITS, metric_names.ENGINE_CACHE_MISSES)
    queries = {"cache": query_cache.QUERY_CACHE}
    assert [registry.get_sample_value(metric.name, queries) for metric in counters] == [1, 1, 1]
    names = {
        "semanticCache",
        "queryCache",
        "responseCache",
        "fileCache",
        "historyCache",
        "sessions",
        "embeddingCache",
    }
    for metric in (*counters, metric_names.ENGINE_CACHE_EVICTIONS, metric_names.ENGINE_CACHE_REFUSED):
        assert {name for name in names if registry.get_sample_value(metric.name, {"cache": name}) is not None} == names
    owned = {part.name: part.owned_bytes for part in runtime.report().components}
    assert names <= owned.keys()
    assert owned["queryCache"] == rooms.queries.kept.owned_bytes() > 0


def test_a_new_generation_is_asked_anew(tmp_path: Path) -> None:
    """R-E06, R-P09: a real engine, whose collection is built anew and reloaded while it serves."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.py").write_text("def open_stream():\n    return 1\n")
    build_sources(tmp_path / "data", [f"small={source}"])
    with EngineProcess(tmp_path / "data", tmp_path / "engine") as engine:
        engine.wait_until_serving()
        answers = [engine.search("open stream").json() for _ in range(2)]
        assert [answer["answered_by"] for answer in answers] == ["index", "same_words"]
        (source / "b.py").write_text("def open_stream_twice():\n    return 2\n")
        build_sources(tmp_path / "data", [f"small={source}"])

        assert ask(engine.run / "engine.sock", "POST", api.RELOAD_PATH, api.Reloaded, api.ReloadRequest()).changed

        answer = engine.search("open stream").json()
        assert (answer["answered_by"], len(answer["hits"])) == ("index", 2)
