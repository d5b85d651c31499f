"""The name, unit and help of every metric, in one place.

Covers: what sidecar and engine export. Does not hold values: collectors read them when scraped. Names follow
Prometheus: base units, `_bytes`, `_seconds`, `_total`; no pid, session or query labels.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Metric(NamedTuple):
    """Help is a sentence; `labels` have bounded values only."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


SIGNAL: Final = Metric("membudget_signal_bytes", "The figure held against the budget.", ("signal",))
BUDGET: Final = Metric("membudget_budget_bytes", "The budget in force.")
LIMIT: Final = Metric("membudget_limit_bytes", "The live memory limit of the engine's container.")
RESIDENT: Final = Metric("membudget_engine_process_resident_bytes", "Resident set size of the engine's process.")
ROOM: Final = Metric("membudget_room_bytes", "Managed bytes that fit below the soft threshold.")
LEVEL: Final = Metric("membudget_ladder_level", "Level of the ladder: 0 normal, 1 soft, 2 hard, 3 emergency.")
TRANSITIONS: Final = Metric("membudget_ladder_transitions_total", "Changes of the ladder's level.")
ENFORCING: Final = Metric("membudget_enforcing", "1 when decisions are carried out, 0 in Observe mode.")
ACTIONS: Final = Metric("membudget_actions_total", "Actions by kind and by how they ended.", ("kind", "status"))
ACTION_FREED: Final = Metric(
    "membudget_action_freed_bytes_total", "Bytes by which actions lowered the signal, as read.", ("kind",)
)
COMPONENT_OWNED: Final = Metric("membudget_component_owned_bytes", "Anonymous bytes a component owns.", ("component",))
COMPONENT_MAPPED: Final = Metric(
    "membudget_component_mapped_bytes", "Resident pages of a component's mapped files.", ("component",)
)
COMPONENT_BUDGET: Final = Metric("membudget_component_budget_bytes", "A component's ceiling.", ("component",))
ORDERS: Final = Metric("membudget_orders_total", "The controller's orders by how they were answered.", ("answer",))
ORDER_AGE: Final = Metric("membudget_order_age_seconds", "Seconds since an order was last accepted.")
BAD_SIGNATURES: Final = Metric(
    "membudget_bad_signatures_total", "Orders and report requests whose signature was not that of their key."
)
ENGINE_UP: Final = Metric("membudget_engine_up", "1 when the engine answers on its control socket.")
READING_ERRORS: Final = Metric("membudget_reading_errors_total", "Readings that were absent.", ("reading",))
SAMPLE_SECONDS: Final = Metric("membudget_sample_cpu_seconds_total", "CPU time the sidecar spent on samples.")

ENGINE_QUERIES: Final = Metric("membudget_engine_queries_total", "Queries by how they were answered.", ("answer",))
ENGINE_QUERY_SECONDS: Final = Metric("membudget_engine_query_duration_seconds", "Time to answer a query.")
ENGINE_CHUNKS: Final = Metric("membudget_engine_chunks", "Chunks in the open generation.", ("collection",))
ENGINE_INDEX_MAPPED: Final = Metric(
    "membudget_engine_index_mapped",
    "1 when the index is file-backed, as the kernel shows it.",
    ("collection",),
)
ENGINE_COMPONENT_OWNED: Final = Metric(
    "membudget_engine_component_owned_bytes", "Anonymous bytes a component owns.", ("component",)
)
ENGINE_CACHE_HITS: Final = Metric("membudget_engine_cache_hits_total", "Cache look-ups that found.", ("cache",))
ENGINE_CACHE_MISSES: Final = Metric(
    "membudget_engine_cache_misses_total", "Cache look-ups that did not find.", ("cache",)
)
ENGINE_CACHE_EVICTIONS: Final = Metric(
    "membudget_engine_cache_evictions_total", "Entries evicted to stay inside a bound.", ("cache",)
)
ENGINE_CACHE_REFUSED: Final = Metric(
    "membudget_engine_cache_refused_total", "Entries not cached because there was no room.", ("cache",)
)
