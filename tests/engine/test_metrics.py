"""What the engine says of itself: names from the one table, figures that move with what happens."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from engine.engine_process import EngineProcess
from membudget_contract import metric_names
from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.metric_names import Metric
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_engine.catalog import Catalog
from membudget_engine.collection import open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.metrics import EngineCollector
from membudget_engine.search import Search
from membudget_runtime.memory_runtime import MemoryRuntime

ENGINE_METRICS = [
    metric
    for name, metric in vars(metric_names).items()
    if name.startswith("ENGINE_") and metric is not metric_names.ENGINE_UP
]
SMALL = {"collection": "small"}
CACHE = {"cache": "semanticCache"}


@pytest.fixture
def searched(small_data: Path, runtime: MemoryRuntime) -> Iterator[tuple[Search, CollectorRegistry]]:
    """A search and what a scrape of it would read."""
    embedder = HashingEmbedder()
    collections = open_collections(small_data, embedder)
    cache = SemanticCache(runtime, embedder.dimension)
    search = Search(Catalog(collections), embedder, cache)
    registry = CollectorRegistry()
    registry.register(EngineCollector(search, [cache.answers], runtime))
    yield search, registry
    for collection in collections.values():
        collection.close()


def _value(registry: CollectorRegistry, metric: Metric, labels: dict[str, str]) -> float | None:
    return registry.get_sample_value(metric.name, labels)


def test_every_family_has_its_name_help_and_labels_from_the_table(engine: EngineProcess) -> None:
    """R-S10: dashboards and rules are written against these names."""
    text = engine.ask("GET", "/metrics").body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert {metric.name.removesuffix("_total") for metric in ENGINE_METRICS} == set(families)
    for metric in ENGINE_METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert metric.help == family.documentation
        for sample in family.samples:
            assert set(metric.labels) == set(sample.labels) - {"le"}


def test_a_scrape_counts_queries_and_cached_answers(searched: tuple[Search, CollectorRegistry]) -> None:
    """R-E02: hits and misses."""
    search, registry = searched

    for query in ("open a stream reader", "open a stream reader", "Open a Stream: Reader", "parse a header"):
        search.answer("small", query, 5)

    assert {"index": 2, "same_words": 1, "same_meaning": 1} == {
        kind: _value(registry, metric_names.ENGINE_QUERIES, {"answer": kind})
        for kind in ("index", "same_words", "same_meaning")
    }
    assert _value(registry, metric_names.ENGINE_CACHE_HITS, CACHE) == 2
    assert _value(registry, metric_names.ENGINE_CACHE_MISSES, CACHE) == 3


def test_evictions_and_owned_bytes_follow_the_cache(
    searched: tuple[Search, CollectorRegistry], runtime: MemoryRuntime
) -> None:
    """R-E10: every component reports its bytes."""
    search, registry = searched
    search.answer("small", "open a stream reader", 5)
    component = {"component": "semanticCache"}
    owned = _value(registry, metric_names.ENGINE_COMPONENT_OWNED, component)

    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=1 << 40))

    assert owned is not None
    assert owned > 4096
    assert _value(registry, metric_names.ENGINE_COMPONENT_OWNED, component) == 0
    assert _value(registry, metric_names.ENGINE_CACHE_EVICTIONS, CACHE) == 1


def test_answers_that_found_no_room_are_counted(small_data: Path, tmp_path: Path) -> None:
    """R-E02: a value larger than the bound is refused, not cached."""
    embedder = HashingEmbedder()
    collections = open_collections(small_data, embedder)
    with closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Ki"})) as runtime:
        cache = SemanticCache(runtime, embedder.dimension)
        search = Search(Catalog(collections), embedder, cache)
        registry = CollectorRegistry()
        registry.register(EngineCollector(search, [cache.answers], runtime))

        search.answer("small", "open a stream reader", 5)

        assert _value(registry, metric_names.ENGINE_CACHE_REFUSED, CACHE) == 1
    collections["small"].close()


def test_the_kernel_shows_that_the_index_is_mapped(searched: tuple[Search, CollectorRegistry]) -> None:
    """R-E01: a gauge that proves the mapping from the kernel's figures."""
    search, registry = searched

    assert _value(registry, metric_names.ENGINE_INDEX_MAPPED, SMALL) == 1
    assert _value(registry, metric_names.ENGINE_CHUNKS, SMALL) == search.catalog.collections["small"].chunks.count()


def test_a_closed_index_has_no_gauge_and_the_scrape_goes_on(searched: tuple[Search, CollectorRegistry]) -> None:
    """R-E01: unknown is not 0."""
    search, registry = searched
    search.catalog.collections["small"].segments[0].index.close()

    assert _value(registry, metric_names.ENGINE_INDEX_MAPPED, SMALL) is None
    assert _value(registry, metric_names.ENGINE_CACHE_HITS, CACHE) == 0
