"""Vectors of texts in two levels: exact while hot, nearly so when compressed, never more bytes than reported."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache as once
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membudget_contract.control_api import Budgets, FreeRequest, Means
from membudget_contract.plan import CollectionPlan
from membudget_contract.policy import Priority
from membudget_engine.caches.cached_embedder import CachedEmbedder
from membudget_engine.caches.embedding_cache import EMBEDDING_CACHE, HOT_SHARE, EmbeddingCache
from membudget_engine.caches.vector_level import KEY_BYTES, Note, VectorLevel
from membudget_engine.caches.vector_orders import Adaptive, LeastFrequent, LeastRecent, VectorOrder
from membudget_engine.embedder import Vectors
from membudget_engine.reduction.quantization import Float16, Int8, Quantization
from membudget_runtime.bounds import start_budgets
from membudget_runtime.component import Ranking
from membudget_runtime.memory_runtime import MemoryRuntime

DIMENSION = 64
KB = 1024
_Vector = npt.NDArray[np.float32]


@once
def vector(seed: int) -> _Vector:
    """A unit vector of its own."""
    drawn = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def budgets(components: dict[str, int], classes: dict[str, Priority] | None = None) -> Budgets:
    """Wide, but for these ceilings."""
    plans = tuple(CollectionPlan(name=name, priority=priority) for name, priority in (classes or {}).items())
    start = start_budgets({"MEMBUDGET_TOTAL": "4Gi"})
    return msgspec.structs.replace(start, components={**start.components, **components}, collections=plans)


def of(runtime: MemoryRuntime, **given: object) -> EmbeddingCache:
    """An empty cache."""
    return EmbeddingCache(runtime, "test-64-v1", DIMENSION, **given)  # pyright: ignore[reportArgumentType]


def filled(cache: EmbeddingCache, texts: Sequence[int], collection: str = "core") -> None:
    """One vector for each."""
    for number in texts:
        assert cache.put(f"text {number}", vector(number), collection)


@dataclass
class Counting:
    """An embedder that tells which texts it was asked for."""

    asked: list[str] = field(default_factory=list[str])
    name: str = "counting-64-v1"
    dimension: int = DIMENSION
    worth_keeping: bool = True

    def embed(self, texts: Sequence[str]) -> Vectors:
        """By their lengths."""
        self.asked += texts
        return np.stack([vector(len(text)) for text in texts]) if texts else np.zeros((0, DIMENSION), dtype=np.float32)


def test_a_vector_is_found_as_it_was_given_while_it_is_hot(runtime: MemoryRuntime) -> None:
    """R-E03: the hot level compresses nothing."""
    cache = of(runtime)
    cache.put("open a socket", vector(1), "core")

    found = cache.get("open a socket", exact=True)

    assert found is not None
    assert vector(1).tobytes() == found.tobytes()
    assert (1, 0) == (len(cache.hot), len(cache.cold))
    assert cache.get("open a sockets") is None


@pytest.mark.parametrize(("form", "off_by"), [(Float16(), 2e-4), (Int8(), 2e-3)])
def test_over_its_share_the_hot_level_is_compressed_and_nothing_is_lost(
    runtime: MemoryRuntime, form: Quantization, off_by: float
) -> None:
    """R-E03: the cold level holds the rest in its own form; a use brings a vector back up."""
    cache = of(runtime, max_bytes=256 * KB, quantization=form)
    filled(cache, range(600))

    assert len(cache.cold) > len(cache.hot) > 0
    assert len(cache.hot) * (4 * DIMENSION) <= HOT_SHARE * 256 * KB
    assert len(cache) == 600
    assert cache.get("text 0", exact=True) is None
    found = cache.get("text 0")
    assert found is not None
    np.testing.assert_allclose(vector(0), found, atol=off_by)
    assert (0, 1) == (cache.hot.hits, cache.cold.hits)
    again = cache.get("text 0")
    assert again is not None
    assert (1, 1) == (cache.hot.hits, cache.cold.hits)
    assert found.tobytes() == again.tobytes()


def test_what_compression_left_is_never_given_out_as_exact(runtime: MemoryRuntime) -> None:
    """R-E03: rows of a collection are the embedder's own, also where a query brought the vector back up."""
    cache, inner = of(runtime, max_bytes=256 * KB), Counting()
    embedder = CachedEmbedder(inner, cache)
    embedder.embed(["first"])
    filled(cache, range(600))
    assert embedder.embed_query("first", "core") is not None
    assert ["first"] == inner.asked

    again = embedder.embed(["first"])

    assert ["first", "first"] == inner.asked
    assert vector(5).tobytes() == again[0].tobytes()
    assert vector(5).tobytes() == embedder.embed(["first"])[0].tobytes()
    assert ["first", "first"] == inner.asked


def test_a_text_is_embedded_once_however_often_it_comes(runtime: MemoryRuntime) -> None:
    """R-E03: also twice in one call, and in the order asked."""
    cache, inner = of(runtime), Counting()
    embedder = CachedEmbedder(inner, cache)

    rows = embedder.embed(["bb", "a", "bb"])
    more = embedder.embed(["ccc", "a"])

    assert ["bb", "a", "ccc"] == inner.asked
    assert [vector(n).tobytes() for n in (2, 1, 2)] == [row.tobytes() for row in rows]
    assert [vector(n).tobytes() for n in (3, 1)] == [row.tobytes() for row in more]
    assert (0, DIMENSION) == embedder.embed([]).shape
    assert (inner.name, inner.dimension) == (embedder.name, embedder.dimension)


def test_vectors_of_another_embedder_are_others(runtime: MemoryRuntime, tmp_path: Path) -> None:
    """R-E03: a restart with another embedder finds none of the former's."""
    cache = of(runtime)
    filled(cache, range(3))
    kept = list(cache.saved(Priority.MEDIUM))
    with closing(MemoryRuntime(tmp_path / "other", {"MEMBUDGET_TOTAL": "4Gi"})) as other_runtime:
        other = EmbeddingCache(other_runtime, "test-64-v2", DIMENSION)

        assert [False] * 3 == [other.restore(entry) for entry in kept]
        assert len(other) == 0


def test_bytes_stay_within_the_bound_whatever_comes(runtime: MemoryRuntime) -> None:
    """R-E03: and evictions are counted."""
    cache = of(runtime, max_bytes=128 * KB)

    for number in range(1500):
        cache.put(f"text {number}", vector(number % 50), "core")
        assert cache.owned_bytes() <= 128 * KB

    assert cache.counters.evictions == cache.evictions() == 1500 - len(cache) > 0
    assert cache.get("text 1499") is not None
    assert cache.get("text 0") is None


def test_a_ceiling_resizes_it_live_and_keeps_what_was_used_last(runtime: MemoryRuntime) -> None:
    """R-E03: no flush."""
    cache = of(runtime)
    filled(cache, range(4000))
    before = cache.owned_bytes()

    runtime.apply(budgets({EMBEDDING_CACHE: 700 * KB}))

    assert cache.owned_bytes() <= 700 * KB < before
    assert cache.get("text 3999", exact=True) is not None
    assert cache.get("text 0") is None
    held = len(cache)
    assert held > 900

    runtime.apply(budgets({EMBEDDING_CACHE: 1400 * KB}))
    assert held == len(cache)
    filled(cache, range(4000, 8_000))

    assert 700 * KB < cache.owned_bytes() <= 1400 * KB


def test_eviction_takes_only_the_class_that_is_named(runtime: MemoryRuntime) -> None:
    """R-E03: a vector has the class of the collection that brought it; Critical stays."""
    cache = of(runtime)
    for number, collection in enumerate(["low", "high", "critical", "pinned"] * 200):
        cache.put(f"text {number}", vector(number), collection)
    ranking = Ranking(
        {"low": Priority.LOW, "high": Priority.HIGH, "critical": Priority.CRITICAL, "pinned": Priority.LOW},
        frozenset({"pinned"}),
    )

    with runtime.ledger.lock:
        removed = cache.evict(1 << 40, Priority.LOW, ranking)

    assert {"low"} == removed.collections.keys()
    assert removed.entries == 200
    assert ["critical", "high", "pinned"] == sorted(use.name for use in cache.collections())
    with runtime.ledger.lock:
        assert cache.evict(1 << 40, Priority.CRITICAL, ranking).entries == 0
        assert cache.evict(1 << 40, Priority.HIGH, ranking).entries == 200
    assert {200} == {use.entries for use in cache.collections()}


def test_under_pressure_vectors_are_compressed_before_they_are_dropped(runtime: MemoryRuntime) -> None:
    """R-E03: the hot level comes down to its share of what is left first."""
    cache = of(runtime)
    filled(cache, range(2000))
    assert len(cache.cold) == 0
    before = cache.owned_bytes()

    with runtime.ledger.lock:
        removed = cache.evict(before // 5, Priority.MEDIUM, Ranking())

    assert removed.entries == 0
    assert removed.freed_bytes >= before // 5
    assert len(cache) == 2000
    assert len(cache.cold) > 0


def test_an_eviction_frees_what_it_says(runtime: MemoryRuntime) -> None:
    """R-E03: asked over the control socket, it ends empty with nothing owned but a table."""
    cache = of(runtime)
    filled(cache, range(3000))

    freed = runtime.free(FreeRequest(means=Means.EVICT, target_bytes=1 << 40))

    assert freed.owned_before_bytes - freed.owned_after_bytes > 600 * KB
    assert len(cache) == 0
    assert cache.owned_bytes() < 2 * KB


def test_a_vector_past_its_time_is_not_found(runtime: MemoryRuntime) -> None:
    """R-E03: by a look-up and by a cleanup, in both levels."""
    clock = Clock()
    cache = of(runtime, ttl_seconds=60.0, clock=clock, max_bytes=256 * KB)
    filled(cache, range(300))
    clock.now += 50
    filled(cache, range(300, 600))
    assert len(cache.hot) > 0 < len(cache.cold)

    clock.now += 11
    assert cache.get("text 299") is None
    assert cache.counters.expirations == 1
    removed = cache.expire()

    assert removed.entries == 299
    assert removed.freed_bytes > 0
    assert len(cache) == 300
    assert cache.get("text 300") is not None
    clock.now += 60
    cache.expire()
    assert (0, 600) == (len(cache), cache.counters.expirations)


@pytest.mark.parametrize("form", [Float16(), Int8()])
def test_vectors_are_back_after_a_restart_each_as_exact_as_it_was(tmp_path: Path, form: Quantization) -> None:
    """R-E03: both levels, in their order of use, with the time they had left."""
    clock = Clock()

    def started() -> tuple[MemoryRuntime, EmbeddingCache]:
        runtime = MemoryRuntime(tmp_path / "state", {"MEMBUDGET_TOTAL": "4Gi"})
        cache = of(runtime, max_bytes=256 * KB, quantization=form, clock=clock, ttl_seconds=100.0)
        runtime.on_persist(EMBEDDING_CACHE, cache)
        return runtime, cache

    runtime, cache = started()
    with closing(runtime):
        filled(cache, range(500))
        hot = {number for number in range(500) if cache.get(f"text {number}", exact=True) is not None}
        rounded = cache.get("text 3")
        assert runtime.persist().entries == 500

    runtime, cache = started()
    with closing(runtime):
        assert len(cache) == 500
        back = {number for number in range(500) if cache.get(f"text {number}", exact=True) is not None}
        assert 0 < len(back) <= len(hot)
        assert back <= hot
        found = cache.get("text 3")
        assert rounded is not None
        assert found is not None
        assert rounded.tobytes() == found.tobytes()
        clock.now += 101
        assert cache.get("text 499") is None


def test_a_collection_takes_its_vectors_along(runtime: MemoryRuntime) -> None:
    """R-E03: dropped by name, and all at once."""
    cache = of(runtime, max_bytes=256 * KB)
    filled(cache, range(300), "core")
    filled(cache, range(300, 600), "archive")

    assert cache.drop("core") == 300
    assert ["archive"] == [use.name for use in cache.collections()]
    assert cache.clear() == 300
    assert (0, []) == (len(cache), cache.collections())


def test_a_value_larger_than_the_bound_is_refused(runtime: MemoryRuntime) -> None:
    """R-E03: and counted."""
    cache = of(runtime, max_bytes=200)

    assert not cache.put("text", vector(1), "core")
    assert (0, 1) == (len(cache), cache.counters.refused)


def test_a_higher_class_is_not_evicted_for_a_lower_one(runtime: MemoryRuntime) -> None:
    """R-E03, R-P07: what comes for a low class finds no room."""
    cache = of(runtime)
    runtime.apply(budgets({EMBEDDING_CACHE: 64 * KB}, {"high": Priority.HIGH, "low": Priority.LOW}))
    number = 0
    while not cache.counters.evictions:
        cache.put(f"text {number}", vector(number), "high")
        number += 1
    held = len(cache)

    for n in range(300):
        cache.put(f"low {n}", vector(n), "low")

    entries = {use.name: use.entries for use in cache.collections()}
    assert held == entries["high"]
    assert entries["low"] < held / 4
    assert cache.owned_bytes() <= 64 * KB


def _level(notes: Sequence[tuple[int, int]]) -> VectorLevel:
    level = VectorLevel(8)
    for number, (used, uses) in enumerate(notes):
        level.add(number.to_bytes(KEY_BYTES, "little"), bytes(8), Note(used, uses, 1, 0, rounded=False))
    return level


@pytest.mark.parametrize(
    ("order", "expected"),
    [(LeastRecent, [2, 0, 3]), (LeastFrequent, [3, 1, 2])],
)
def test_each_order_names_what_goes_first(order: Callable[[], VectorOrder], expected: list[int]) -> None:
    """R-E03: by the last use, and by the number of uses."""
    level = _level([(20, 9), (50, 1), (10, 2), (30, 0), (40, 8)])

    assert expected == order().first(level, np.arange(5), 3).tolist()


def test_the_adaptive_order_takes_from_what_is_over_its_share() -> None:
    """R-E03: new ones first where they are many, those used again where the new ones are few."""
    many_new = _level([(number, 0) for number in range(90)] + [(number, 1) for number in range(10)])
    few_new = _level([(number, 0) for number in range(5)] + [(100 - number, 1) for number in range(95)])

    assert list(range(10)) == Adaptive().first(many_new, np.arange(100), 10).tolist()
    assert [99, 98, 97] == Adaptive().first(few_new, np.arange(100), 3).tolist()
    assert 100 == len(set(Adaptive().first(few_new, np.arange(100), 200).tolist()))


def test_the_share_of_new_ones_follows_what_comes_back() -> None:
    """R-E03: a return soon after it went speaks for its part."""
    order, level = Adaptive(), _level([(0, 0)] * 64)
    order.first(level, np.arange(64), 1)
    before = order.new_share

    order.left(b"new", Note(1, 0, 1, 0, rounded=True))
    assert order.uses_of_new(b"new", 64) == 1
    assert order.new_share > before
    assert order.uses_of_new(b"new", 64) == 0
    risen = order.new_share
    order.left(b"main", Note(1, 3, 1, 0, rounded=True))
    assert order.uses_of_new(b"main", 64) == 1
    assert order.new_share < risen


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["put", "get", "drop", "evict"]), st.integers(0, 40)), max_size=120))
def test_it_is_a_dict_that_forgets(small: tuple[EmbeddingCache, MemoryRuntime], steps: list[tuple[str, int]]) -> None:
    """R-E03: what is found is what was put last under that text, in whatever level it lies."""
    cache, runtime = small
    model: dict[str, int] = {}
    for step, number in steps:
        text = f"text {number % 20}"
        if step == "put" and cache.put(text, vector(number), f"c{number % 3}"):
            model[text] = number
        elif step == "get" and (found := cache.get(text)) is not None:
            np.testing.assert_allclose(vector(model[text]), found, atol=2e-4)
        elif step == "drop":
            cache.drop(f"c{number % 3}")
        elif step == "evict":
            with runtime.ledger.lock:
                cache.evict(number * 100, Priority.MEDIUM, Ranking())
        assert len(cache) == sum(use.entries for use in cache.collections())
    cache.clear()
    assert (0, []) == (len(cache), cache.collections())


@pytest.fixture
def small(runtime: MemoryRuntime) -> tuple[EmbeddingCache, MemoryRuntime]:
    """So small that most of it is compressed."""
    return of(runtime, max_bytes=4 * KB), runtime


def test_many_threads_find_no_foreign_vector(runtime: MemoryRuntime) -> None:
    """R-E03: under puts, look-ups, evictions and promotions at once."""
    cache = of(runtime, max_bytes=96 * KB)
    wrong: list[str] = []

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for number in chance.integers(0, 600, 600).tolist():
            found = cache.get(f"text {number}")
            if found is None:
                cache.put(f"text {number}", vector(number), f"c{number % 4}")
            elif not np.allclose(found, vector(number), atol=2e-4):
                wrong.append(f"text {number}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong
    assert cache.owned_bytes() <= 96 * KB
