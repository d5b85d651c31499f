"""An engine's memory for people: figures that agree with the kernel's, advice with reasons, a run that is measured."""

import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from engine.engine_process import EngineProcess, status_bytes, wait_until
from membudget_contract.control_api import ComponentReport, GcReport
from membudget_contract.leak_detector_api import LeakFindings
from membudget_contract.policy import Signal
from membudget_engine.caches.conversation import Turn
from membudget_engine.caches.session_pool import IDLE_SECONDS, MOST_SESSIONS
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import MeasurementRunning
from membudget_engine.monitoring import CacheFigures, MemoryView, Optimized, Statistics, recommendations
from membudget_engine.monitoring_api import MonitoringApi
from membudget_engine.rooms import Rooms
from membudget_engine.search import Search
from membudget_engine.search_api import SearchApi
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.memory_runtime import MemoryRuntime

MB = 1024 * 1024
VIEW, OPTIMIZE = "/monitoring/memory", "/monitoring/memory/optimize"


@pytest.fixture
def rooms(runtime: MemoryRuntime) -> Iterator[Rooms]:
    """Empty."""
    with closing(Rooms(runtime, HashingEmbedder(), {})) as rooms:
        yield rooms


@pytest.fixture
def monitoring(small_data: Path, runtime: MemoryRuntime, rooms: Rooms) -> Iterator[MonitoringApi]:
    """Of an engine that is not served."""
    embedder = HashingEmbedder()
    with closing(Catalog(open_collections(small_data, embedder))) as catalog:
        search = Search(catalog, embedder, rooms.semantic, rooms.queries, rooms.responses)
        with (
            closing(SearchApi(search, CollectorRegistry(), lambda _: None)) as api,
            closing(MonitoringApi(runtime, rooms, api)) as monitoring,
        ):
            yield monitoring


def test_an_engine_says_what_its_memory_is(small_data: Path, tmp_path: Path) -> None:
    """R-E19: statistics, leak report, session and cache figures, recommendations; within 10 % of the kernel's."""
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        session = engine.ask("POST", "/v1/sessions").json()["id"]
        engine.ask("POST", f"/v1/sessions/{session}/turns", msgspec.json.encode(Turn("user", "hello")))
        for _ in range(3):
            engine.search("open a stream reader")

        reply = engine.ask("GET", VIEW)
        view = msgspec.json.decode(reply.body, type=MemoryView)
        resident = status_bytes(engine.process.pid, "VmRSS")

    assert reply.status == 200
    assert view.statistics.budget_bytes == 150 * MB
    assert view.statistics.resident_bytes == pytest.approx(resident, rel=0.1)
    assert view.statistics.signal_bytes is not None
    assert 0 < view.statistics.managed_bytes < view.statistics.signal_bytes < 150 * MB
    assert (view.sessions.sessions, view.sessions.most_sessions, view.sessions.owned_bytes > 0) == (1, 500, True)
    answers, queries = (next(cache for cache in view.caches if cache.name == name) for name in CACHES[:2])
    assert (answers.entries, answers.hits, answers.misses, answers.hit_ratio) == (1, 2, 1, 2 / 3)
    assert (queries.entries, queries.hits, queries.misses, queries.hit_ratio) == (1, 0, 1, 0.0)
    owned = {part.name: part.owned_bytes for part in view.statistics.components}
    assert {cache.name: cache.owned_bytes for cache in view.caches} == {name: owned[name] for name in CACHES}
    assert (view.leaks.on, view.recommendations) == (False, ())


CACHES = ["semanticCache", "queryCache", "responseCache", "fileCache", "historyCache", "sessions", "embeddingCache"]


def test_a_run_by_hand_over_http_says_what_the_kernel_saw(small_data: Path, tmp_path: Path) -> None:
    """R-E19: before, after, and their difference; only by POST."""
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        reply = engine.ask("POST", OPTIMIZE)
        after = status_bytes(engine.process.pid, "VmRSS")
        assert engine.ask("GET", OPTIMIZE).status == 405

    optimized = msgspec.json.decode(reply.body, type=Optimized)
    assert (reply.status, optimized.problem) == (200, None)
    assert optimized.before_bytes is not None
    assert optimized.after_bytes is not None
    assert optimized.freed_bytes == optimized.before_bytes - optimized.after_bytes
    assert optimized.resident_after_bytes == pytest.approx(after, rel=0.1)
    assert 0 < optimized.took_seconds < 10


def test_a_run_gives_back_free_pages_of_the_heap(monitoring: MonitoringApi) -> None:
    """R-E19: 60 MB that were freed and stayed with the allocator; measured, not added up."""
    kept = [bytes(10_000) for _ in range(6_000)]
    last = kept[-1]
    del kept

    optimized = monitoring.optimize()

    assert optimized.freed_bytes is not None
    assert optimized.freed_bytes > 40 * MB
    assert optimized.expired_entries == 0
    assert last is not None


def test_a_run_drops_what_is_past_its_time_and_what_nobody_reaches(
    small_data: Path, runtime: MemoryRuntime, monitoring: MonitoringApi, rooms: Rooms
) -> None:
    """R-E19: expired entries, reference cycles; nothing that is of use."""
    del small_data
    soon_late = KeptEntry("small", b"key", b"value", packed=False, seconds_left=1e-6)
    assert rooms.queries.kept.restore(soon_late)
    session = rooms.sessions.start()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle

    optimized = monitoring.optimize()

    assert optimized.expired_entries == 1
    assert optimized.collected_objects >= 1
    assert rooms.sessions.get(session.id) == msgspec.json.encode(session)
    assert runtime.ledger.refused == 0


def test_one_run_is_measured_at_a_time(runtime: MemoryRuntime, monitoring: MonitoringApi) -> None:
    """R-E19: two at once would each count the other's."""
    ended: list[Optimized] = []

    def run() -> None:
        while not ended:
            with suppress(MeasurementRunning):
                ended.append(monitoring.optimize())

    def refused() -> bool:
        try:
            monitoring.optimize()
        except MeasurementRunning:
            return True
        return False

    running = threading.Thread(target=run)
    with runtime.ledger.lock:
        # The other thread's run waits for the lock in its middle.
        running.start()
        wait_until(refused)
    running.join()
    assert len(ended) == 1


def test_sessions_are_counted_as_they_come_and_go(monitoring: MonitoringApi, rooms: Rooms) -> None:
    """R-E19, R-E07: held, given way, ended."""
    for _ in range(MOST_SESSIONS + 2):
        rooms.sessions.start()

    figures = monitoring.view().sessions

    assert (figures.sessions, figures.gave_way, figures.ended_idle) == (MOST_SESSIONS, 2, 0)
    assert figures.owned_bytes == rooms.sessions.kept.owned_bytes()
    assert IDLE_SECONDS == 1800


def statistics(**changes: object) -> Statistics:
    """Of an engine that is well."""
    part = ComponentReport(
        name="semanticCache", owned_bytes=MB, mapped_bytes=0, budget_bytes=40 * MB, entries=9, evictable_bytes=MB,
        critical_bytes=0, spilled_bytes=0,
    )  # fmt: skip
    well = Statistics(
        signal=Signal.UNRECLAIMABLE, signal_bytes=60 * MB, resident_bytes=80 * MB, budget_bytes=150 * MB,
        usage_ratio=0.4, managed_bytes=20 * MB, unmanaged_bytes=40 * MB, room_bytes=60 * MB, enforced=True, refused=0,
        evictions=0, gc=GcReport(collections=1, collected=1), components=(part,),
    )  # fmt: skip
    return msgspec.structs.replace(well, **changes)


def cache(**changes: object) -> CacheFigures:
    """A cache that is well."""
    well = CacheFigures("semanticCache", 500, 30 * MB, 40 * MB, 900, 100, 0.9, 0, 0, 0)
    return msgspec.structs.replace(well, **changes)


OFF = LeakFindings(on=False)
OVER = msgspec.structs.replace(statistics().components[0], owned_bytes=41 * MB)


@pytest.mark.parametrize(
    ("now", "leaks", "figures", "about"),
    [
        (statistics(), OFF, cache(), []),
        (statistics(usage_ratio=None, unmanaged_bytes=None, signal_bytes=None), OFF, cache(), []),
        (statistics(usage_ratio=0.85), OFF, cache(), ["budget.total"]),
        (statistics(unmanaged_bytes=76 * MB), OFF, cache(), ["unmanaged"]),
        (statistics(), LeakFindings(on=True, bytes_per_hour=11 * MB), cache(), ["leaks"]),
        (statistics(), LeakFindings(on=True, bytes_per_hour=9 * MB), cache(), []),
        (statistics(components=(OVER,)), OFF, cache(), ["budget.components.semanticCache"]),
        (statistics(), OFF, cache(refused=501), ["budget.components.semanticCache"]),
        (statistics(), OFF, cache(owned_bytes=39 * MB, hit_ratio=0.1), ["budget.components.semanticCache"]),
        (statistics(), OFF, cache(owned_bytes=39 * MB, hit_ratio=0.1, hits=1, misses=9), []),
        (statistics(), OFF, cache(owned_bytes=39 * MB, ceiling_bytes=None, hit_ratio=0.1), []),
        (statistics(), OFF, cache(owned_bytes=39 * MB, hit_ratio=None, hits=0, misses=0), []),
    ],
)
def test_advice_follows_from_figures_and_unknown_ones_advise_nothing(
    now: Statistics, leaks: LeakFindings, figures: CacheFigures, about: list[str]
) -> None:
    """R-E19: each with its reason in figures."""
    advised = recommendations(now, leaks, [figures])

    assert [each.about for each in advised] == about
    assert all(any(letter.isdigit() for letter in each.reason) and each.advice for each in advised)
