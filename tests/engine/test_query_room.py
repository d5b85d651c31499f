"""A budget that falls: less effort first, then refusals that may be tried again; what needs no memory always works."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from engine.written import EMBEDDER, Written, note, notes, written
from membudget_contract import metric_names
from membudget_contract.policy import Signal
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.index.effort import Effort
from membudget_engine.metrics import EngineCollector
from membudget_engine.query_room import QueryRoom
from membudget_engine.search import AnsweredBy, Hit, Search
from membudget_runtime.errors import NoRoom
from membudget_runtime.own_memory import OwnMemory

TARGET_SHARE = 0.78
"""The soft entry less its margin."""


def _signal_bytes() -> int:
    memory = OwnMemory()
    try:
        held = memory.signal_bytes(Signal.UNRECLAIMABLE)
    finally:
        memory.close()
    assert held is not None
    return held


@contextmanager
def _opened(
    tmp_path: Path, target_of_signal: float, kind: type[QueryRoom] = QueryRoom
) -> Generator[tuple[Written, Search, QueryRoom]]:
    """A budget whose target is so much of what this process holds already."""
    with written(tmp_path / "data", tmp_path / "state") as first:
        first.writer.upsert("core", notes(range(300), "first"), representation="Compact")
    total = int(_signal_bytes() * target_of_signal / TARGET_SHARE)
    with written(tmp_path / "data", tmp_path / "state", total=str(total)) as opened:
        room = kind(opened.runtime.ledger)
        cache = SemanticCache(opened.runtime, EMBEDDER.dimension)
        yield opened, Search(opened.catalog, EMBEDDER, cache, room=room), room


def _ids(search: Search, query: str) -> list[str]:
    return [hit.chunk.id for hit in msgspec.json.decode(search.answer("core", query, 5).hits, type=list[Hit])]


def test_with_room_a_query_has_full_effort_and_its_answer_is_kept(tmp_path: Path) -> None:
    """R-E21: nothing is held back without need; the bytes are returned."""
    with _opened(tmp_path, 2.0) as (opened, search, room):
        before = opened.runtime.ledger.managed_bytes()
        assert _ids(search, "first note_17")[0] == "note-17"
        assert search.answer("core", "first note_17", 5).answered_by is AnsweredBy.SAME_WORDS
        assert (room.reduced, room.refused) == (0, 0)
        assert opened.runtime.ledger.managed_bytes() >= before


def test_a_little_over_its_budget_it_answers_with_less_effort(tmp_path: Path) -> None:
    """R-E21: smaller rerank, before anything is refused; a scrape counts them."""
    with _opened(tmp_path, 0.9) as (opened, search, room):
        assert _ids(search, "first note_17")[0] == "note-17"
        assert search.answer("core", "first note_17", 5).answered_by is AnsweredBy.INDEX
        assert (room.reduced, room.refused) == (2, 0)
        assert _scraped(search, opened) == (2, 0)


def _scraped(search: Search, opened: Written) -> tuple[float | None, float | None]:
    registry = CollectorRegistry()
    registry.register(EngineCollector(search, [], opened.runtime))
    names = (metric_names.ENGINE_QUERIES_REDUCED.name, metric_names.ENGINE_QUERIES_REFUSED.name)
    reduced, refused = (registry.get_sample_value(name) for name in names)
    return reduced, refused


def test_a_process_over_its_base_limit_still_answers_with_full_effort(tmp_path: Path) -> None:
    """R-E21, R-E10: what a query takes is gone when it is answered; grants are what that limit refuses."""
    with _opened(tmp_path, 2.0) as (opened, search, room):
        ledger = opened.runtime.ledger
        ledger.bounds = replace(ledger.bounds, base_limit_bytes=1024)
        assert _ids(search, "first note_17")[0] == "note-17"
        assert (room.reduced, room.refused) == (0, 0)


class Short(QueryRoom):
    """Never has room for full effort, whatever the caches have room for."""

    @contextmanager
    def admitted(self, byte_count: int) -> Generator[Effort]:
        """Less effort."""
        del byte_count
        yield Effort.REDUCED


def test_an_answer_of_less_effort_is_not_kept_where_it_could_be(tmp_path: Path) -> None:
    """R-E21: the same question has a full answer when there is room again."""
    with _opened(tmp_path, 2.0, Short) as (_, search, _):
        again = [search.answer("core", "first note_17", 5).answered_by for _ in range(2)]
        assert again == [AnsweredBy.INDEX, AnsweredBy.INDEX]


def test_far_over_its_budget_queries_are_refused_and_what_needs_no_memory_works(tmp_path: Path) -> None:
    """R-E21: typed and retriable; deletes, reading a chunk, the report."""
    with _opened(tmp_path, 0.5) as (opened, search, room):
        with pytest.raises(NoRoom, match="nothing is left to evict"):
            search.answer("core", "first note_17", 5)
        with pytest.raises(NoRoom):
            opened.writer.upsert("core", [note(1, "more")])
        assert room.refused == 1
        assert _scraped(search, opened) == (0, 1)
        assert opened.writer.delete("core", ["note-1"]) == 1
        assert search.chunk_body("core", "note-1") is None
        assert search.chunk_body("core", "note-2") is not None
        assert opened.runtime.report().components


@pytest.mark.parametrize("representation", ["Exact", "Float16", "Int8", "Compact"])
def test_less_effort_finds_most_of_the_same(
    tmp_path: Path, representation: str, publish: Callable[[str], None]
) -> None:
    """R-E21: a quarter of lists and rows, in every representation; ids of the collection, best first."""
    with written(tmp_path / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(400), "first"), representation=msgspec.convert(representation, str))  # pyright: ignore[reportArgumentType]
        with opened.catalog.use("core") as core:
            vector = EMBEDDER.embed(["first note_17"])
            full, reduced = (core.find(vector, 10, effort) for effort in (Effort.FULL, Effort.REDUCED))
    same = len({row for _, row in full} & {row for _, row in reduced})
    publish(f"{representation}: {same} of 10 hits are the same with a quarter of the effort")
    assert full[0] == reduced[0]
    assert [score for score, _ in reduced] == sorted((score for score, _ in reduced), reverse=True)
    assert same >= 2
