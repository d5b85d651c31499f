"""One engine: is it fast, do its caches help, is its index where it should be?"""

from __future__ import annotations

from typing import Final

from membudget_observability.dashboards.panel import Dashboard, Panel, Query, Row, Show, Unit, Variable, figure

_IN: Final = 'namespace=~"$namespace", pod=~"$pod"'


def _of(metric: str) -> str:
    return f"{metric}{{{_IN}}}"


def _rate(metric: str) -> str:
    return f"rate({_of(metric)}[$__rate_interval])"


_HALF: Final = _of("instance:membudget_engine_query_duration_seconds:p50_rate5m")
_SLOW: Final = _of("instance:membudget_engine_query_duration_seconds:p99_rate5m")
_FOUND: Final = _of("instance_cache:membudget_engine_cache_hits:ratio_rate5m")

_FROM_CACHES: Final = f'membudget_engine_queries_total{{{_IN}, answer!="index"}}'

_NOW: Final = Row("Now", (
    figure("Queries a second", "How much is asked?", Unit.PER_SECOND,
           f"sum({_of('instance:membudget_engine_queries:rate5m')})", width=6),
    figure("99 of 100 within", "How slow are the slow ones?", Unit.SECONDS, f"max({_SLOW})", width=6),
    figure("Answered by a cache", "How often is the index spared?", Unit.RATIO,
           f"sum(rate({_FROM_CACHES}[$__rate_interval])) / sum({_rate('membudget_engine_queries_total')})", width=6),
    figure("Chunks", "How much is indexed?", Unit.COUNT, f"sum({_of('membudget_engine_chunks')})", width=6),
))  # fmt: skip

_QUERIES: Final = Row("Queries", (
    Panel("Queries by what answered them", "Does the index answer, or a cache?", Unit.PER_SECOND, (
        Query(f"sum by (answer) ({_rate('membudget_engine_queries_total')})", "{{answer}}"),
    ), Show.STACK, width=12),
    Panel("Time to answer", "How long does an asker wait?", Unit.SECONDS, (
        Query(_HALF, "half"),
        Query(_SLOW, "99 of 100"),
    ), width=12),
))  # fmt: skip

_CACHES: Final = Row("Caches", (
    Panel("Found in each cache", "Which caches earn their memory?", Unit.RATIO, (
        Query(_FOUND, "{{cache}}"),
    )),
    Panel("Hits, misses, evictions", "Are caches too small? Then evictions exceed hits.", Unit.PER_SECOND, (
        Query(f"sum({_rate('membudget_engine_cache_hits_total')})", "hits"),
        Query(f"sum({_rate('membudget_engine_cache_misses_total')})", "misses"),
        Query(f"sum({_rate('membudget_engine_cache_evictions_total')})", "evictions"),
    )),
    Panel("Not cached", "Which answers found no room?", Unit.PER_SECOND, (
        Query(_rate("membudget_engine_cache_refused_total"), "{{cache}}"),
    )),
    Panel("Entries", "How much does each cache hold?", Unit.COUNT, (
        Query(_of("membudget_engine_cache_entries"), "{{cache}}"),
    ), width=24),
))  # fmt: skip

_INDEX: Final = Row("Index and components", (
    Panel("Owned by component", "Which component holds anonymous memory?", Unit.BYTES, (
        Query(_of("membudget_engine_component_owned_bytes"), "{{component}}"),
    ), Show.STACK),
    Panel("Index is mapped", "1: the kernel shows it as file pages, which cost nothing to drop.", Unit.COUNT, (
        Query(_of("membudget_engine_index_mapped"), "{{collection}}"),
    ), Show.STEPS),
    Panel("Garbage collections", "How often does Python collect, and how much does it find?", Unit.PER_SECOND, (
        Query(_rate("membudget_engine_gc_collections_total"), "collections"),
        Query(_rate("membudget_engine_gc_collected_total"), "objects freed"),
    )),
))  # fmt: skip

ENGINE: Final = Dashboard(
    "engine",
    "membudget / Engine",
    "Is a retrieval engine fast, do its caches help, and is its index where it should be?",
    (
        Variable("namespace", "membudget_engine_chunks"),
        Variable("pod", 'membudget_engine_chunks{namespace=~"$namespace"}'),
    ),
    (_NOW, _QUERIES, _CACHES, _INDEX),
)
