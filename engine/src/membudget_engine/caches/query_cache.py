"""Which chunks answer a query, by its words: rows and scores, a dozen bytes for each hit.

Covers: the same question again within three minutes, answered without embedding or index: a room so small that nothing
is gained by evicting from it. Does not cover the rows (`found_rows`), the chunks' texts (`stores.chunk_texts`),
nor what is found by meaning (`semantic_cache`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract.control_api import Budgets
from membudget_contract.plan import CACHED_QUERIES, CACHED_QUERIES_EACH
from membudget_contract.quantities import MIB
from membudget_engine.caches.answer_keys import query_key
from membudget_engine.caches.counted_cache import CountedCache, Counts
from membudget_runtime.memory_runtime import MemoryRuntime

QUERY_CACHE: Final = "queryCache"
TTL_SECONDS: Final = 180.0
MAX_BYTES: Final = MIB
"""Where no plan names a ceiling: 500 queries of 50 hits take 0.5 MB."""


class QueryCache:
    """Rows by collection, its generation, number of hits asked, and words. Thread-safe."""

    def __init__(self, runtime: MemoryRuntime) -> None:
        self.kept = CountedCache(
            QUERY_CACHE,
            runtime,
            counts=Counts(CACHED_QUERIES, CACHED_QUERIES_EACH),
            max_bytes=MAX_BYTES,
            ttl_seconds=TTL_SECONDS,
            counts_of=_counts,
        )

    def same_query(self, collection: str, tag: bytes, hits: int, query: str) -> bytes | None:
        """The rows found for the same words; None when it is not known."""
        return self.kept.get(collection, query_key(tag, hits, query))

    def keep(self, collection: str, tag: bytes, hits: int, query: str, rows: bytes) -> None:
        """Keep what was found, if there is room for it."""
        self.kept.put(collection, query_key(tag, hits, query), rows)


def _counts(budgets: Budgets) -> Counts:
    named = {plan.name: plan.max_cached_queries for plan in budgets.collections}
    return Counts(budgets.max_cached_queries, CACHED_QUERIES_EACH, named)
