"""The engine's own metrics, read when they are scraped.

Covers: queries, chunks, proof of the mapping, cache counters, in at most 500 series. Does not cover usage, budgets and
the ladder: the sidecar exports what policy needs. Names and help: `membudget_contract.metric_names`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric
from membudget_engine.caches.counted_cache import CountingCache
from membudget_engine.collection import Collection
from membudget_engine.errors import IndexClosed
from membudget_engine.search import AnsweredBy, Search
from membudget_runtime.memory_runtime import MemoryRuntime

COLLECTIONS: Final = 150
"""Exported, those with the most chunks: with everything else fewer than 500 series whatever the data folder holds."""
COMPONENTS: Final = 40


class EngineCollector(Collector):
    """Reads search, caches and ledger once per scrape."""

    def __init__(self, search: Search, caches: Sequence[CountingCache], runtime: MemoryRuntime) -> None:
        self._search = search
        self._caches = caches
        self._runtime = runtime

    def collect(self) -> Iterator[Family]:
        """All families."""
        yield _counter(metric_names.ENGINE_QUERIES, {(kind.value,): self._search.answered[kind] for kind in AnsweredBy})
        largest = _largest(self._search.catalog.collections)
        yield _gauge(metric_names.ENGINE_CHUNKS, {(name,): c.manifest.count for name, c in largest.items()})
        yield _gauge(metric_names.ENGINE_INDEX_MAPPED, _mapped(largest))
        parts = sorted(self._runtime.report().components, key=lambda part: part.owned_bytes, reverse=True)
        yield _gauge(
            metric_names.ENGINE_COMPONENT_OWNED, {(part.name,): part.owned_bytes for part in parts[:COMPONENTS]}
        )
        counters = {(cache.name,): cache.counters for cache in self._caches}
        yield _gauge(metric_names.ENGINE_CACHE_ENTRIES, {(cache.name,): len(cache) for cache in self._caches})
        yield _counter(metric_names.ENGINE_CACHE_HITS, {name: each.hits for name, each in counters.items()})
        yield _counter(metric_names.ENGINE_CACHE_MISSES, {name: each.misses for name, each in counters.items()})
        yield _counter(metric_names.ENGINE_CACHE_EVICTIONS, {name: each.evictions for name, each in counters.items()})
        yield _counter(metric_names.ENGINE_CACHE_REFUSED, {name: each.refused for name, each in counters.items()})


def _largest(opened: Mapping[str, Collection]) -> dict[str, Collection]:
    """Those with the most chunks: a data folder may hold any number of collections."""
    by_chunks = sorted(opened.items(), key=lambda item: item[1].manifest.count, reverse=True)
    return dict(by_chunks[:COLLECTIONS])


def _mapped(opened: Mapping[str, Collection]) -> dict[tuple[str, ...], int]:
    """1 or 0 for each collection; one whose mapping the kernel did not show is left out: unknown is not 0."""
    mapped: dict[tuple[str, ...], int] = {}
    for name, collection in opened.items():
        with contextlib.suppress(OSError, IndexClosed):
            mapped[(name,)] = int(collection.index.is_file_backed())
    return mapped


def _gauge(metric: Metric, values: dict[tuple[str, ...], int]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(metric: Metric, values: dict[tuple[str, ...], int]) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
