"""The engine's own metrics, read when they are scraped.

Covers: queries, chunks, segments, proof of the mapping, what a writer published, caches, in at most 500 series. Does
not cover usage, budgets and the ladder: the sidecar exports what policy needs. Names and help:
`membudget_contract.metric_names`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric
from membudget_engine.caches.counted_cache import CountingCache
from membudget_engine.caches.embedding_cache import EmbeddingCache
from membudget_engine.collection import Collection
from membudget_engine.errors import IndexClosed
from membudget_engine.publishing import COMPACTION, SEAL, Publishing
from membudget_engine.search import AnsweredBy, Search
from membudget_runtime.memory_runtime import MemoryRuntime

COLLECTIONS: Final = 90
"""Exported, those with the most chunks: with everything else fewer than 500 series whatever the data folder holds."""
COMPONENTS: Final = 40


class EngineCollector(Collector):
    """Reads search, caches and ledger once per scrape."""

    def __init__(
        self,
        search: Search,
        caches: Sequence[CountingCache],
        runtime: MemoryRuntime,
        embeddings: EmbeddingCache | None = None,
        publishing: Publishing | None = None,
    ) -> None:
        """`embeddings`, where there are some, is told by its levels too; `publishing` is a writer's."""
        self._publishing = publishing
        self._embeddings = embeddings
        self._search = search
        self._caches = caches
        self._runtime = runtime

    def collect(self) -> Iterator[Family]:
        """All families."""
        yield _counter(metric_names.ENGINE_QUERIES, {(kind.value,): self._search.answered[kind] for kind in AnsweredBy})
        room = self._search.room
        if room is not None:
            yield _counter(metric_names.ENGINE_QUERIES_REDUCED, {(): room.reduced})
            yield _counter(metric_names.ENGINE_QUERIES_REFUSED, {(): room.refused})
        largest = _largest(self._search.catalog.collections)
        yield _gauge(metric_names.ENGINE_CHUNKS, {(name,): c.count for name, c in largest.items()})
        yield _gauge(metric_names.ENGINE_INDEX_MAPPED, _mapped(largest))
        yield _gauge(metric_names.ENGINE_SEGMENTS, {(name,): len(c.segments) for name, c in largest.items()})
        dead = {(name,): sum(rows.dead for rows in c.dead) for name, c in largest.items()}
        yield _gauge(metric_names.ENGINE_DEAD_ROWS, dead)
        yield _counter(metric_names.ENGINE_PUBLICATIONS, _of_kinds(self._publishing and self._publishing.published))
        yield _counter(
            metric_names.ENGINE_PUBLISHED_BYTES, _of_kinds(self._publishing and self._publishing.written_bytes)
        )
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
        if self._embeddings is not None:
            yield from _by_level(self._embeddings)


def _by_level(cache: EmbeddingCache) -> Iterator[Family]:
    """A look-up asks the cold level only for what is not hot."""
    levels = {"hot": cache.hot, "cold": cache.cold}
    misses = {"hot": cache.counters.misses + cache.cold.hits, "cold": cache.counters.misses}
    yield _gauge(metric_names.ENGINE_EMBEDDING_ENTRIES, {(name,): len(level) for name, level in levels.items()})
    yield _counter(metric_names.ENGINE_EMBEDDING_HITS, {(name,): level.hits for name, level in levels.items()})
    yield _counter(metric_names.ENGINE_EMBEDDING_MISSES, {(name,): count for name, count in misses.items()})


def _largest(opened: Mapping[str, Collection]) -> dict[str, Collection]:
    """Those with the most chunks: a data folder may hold any number of collections."""
    by_chunks = sorted(opened.items(), key=lambda item: item[1].manifest.count, reverse=True)
    return dict(by_chunks[:COLLECTIONS])


def _mapped(opened: Mapping[str, Collection]) -> dict[tuple[str, ...], int]:
    """1 or 0 for each collection; one whose mapping the kernel did not show is left out: unknown is not 0."""
    mapped: dict[tuple[str, ...], int] = {}
    for name, collection in opened.items():
        with contextlib.suppress(OSError, IndexClosed):
            mapped[(name,)] = int(all(index.is_file_backed() for index in collection.indexes))
    return mapped


def _of_kinds(counter: Counter[str] | None) -> dict[tuple[str, ...], int]:
    """None where nothing is published: an engine that only reads has no figure, not 0."""
    return {} if counter is None else {(kind,): counter[kind] for kind in (SEAL, COMPACTION)}


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
