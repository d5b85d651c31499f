"""The name, unit and help of every metric, in one place.

Covers: what sidecar, engine and controller export. Does not hold values: collectors read them when scraped. Names
follow Prometheus: base units, `_bytes`, `_seconds`, `_total`; no pid, session or query labels.
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
PROCESS_MEMORY: Final = Metric(
    "membudget_engine_process_memory_bytes", "Memory of the engine's process by its kind.", ("kind",)
)
PROCESS_FAULTS: Final = Metric(
    "membudget_engine_process_faults_total", "Page faults of the engine's process; major ones read a disk.", ("kind",)
)
CGROUP_MEMORY: Final = Metric(
    "membudget_cgroup_memory_bytes", "Memory of the engine's container by its kind.", ("kind",)
)
CGROUP_LIMIT_HITS: Final = Metric("membudget_cgroup_limit_hits_total", "Charges that met the container's limit.")
CGROUP_OOM_KILLS: Final = Metric("membudget_cgroup_oom_kills_total", "OOM kills in the engine's container.")
CGROUP_REFAULTS: Final = Metric(
    "membudget_cgroup_refaults_total", "File pages read again soon after they were dropped."
)
CGROUP_STALL: Final = Metric(
    "membudget_cgroup_stall_ratio", "Share of the last 10 s in which some task of the container waited for memory."
)
PRESSURE: Final = Metric("membudget_pressure_ratio", "The signal over the budget, 0 to 1.")
LIMIT_USAGE: Final = Metric("membudget_limit_usage_ratio", "The signal over the container's limit.")
AVAILABLE: Final = Metric("membudget_available_bytes", "Bytes between the signal and the container's limit.")
SIGNAL_PEAK: Final = Metric("membudget_signal_peak_bytes", "The largest signal since the engine started.")
UNMANAGED: Final = Metric("membudget_unmanaged_bytes", "The signal less what the engine's runtime manages.")
LIMIT_FORECAST: Final = Metric(
    "membudget_limit_forecast_seconds", "When the signal meets the container's limit if it grows on as it did."
)
LIMIT_FORECAST_CONFIDENCE: Final = Metric(
    "membudget_limit_forecast_confidence_ratio", "How far the forecast may be trusted, 0 to 1; from 0.5 on it counts."
)
LEAK_SUSPECTED: Final = Metric(
    "membudget_leak_suspected_bytes",
    "Steady growth of a component beyond its budget, or of what nobody manages.",
    ("component",),
)
ALERT_ACTIVE: Final = Metric("membudget_alert_active", "1 while the alert holds.", ("alert",))
ALERTS: Final = Metric("membudget_alerts_total", "Alerts raised since the sidecar started.", ("alert",))
GC_COLLECTIONS: Final = Metric("membudget_engine_gc_collections_total", "Garbage collections in the engine.")
GC_COLLECTED: Final = Metric(
    "membudget_engine_gc_collected_total", "Objects that garbage collection freed in the engine."
)
ROOM: Final = Metric("membudget_room_bytes", "Managed bytes that fit below the soft threshold.")
LEVEL: Final = Metric("membudget_ladder_level", "Level of the ladder: 0 normal, 1 soft, 2 hard, 3 emergency.")
TRANSITIONS: Final = Metric("membudget_ladder_transitions_total", "Changes of the ladder's level.")
ENFORCING: Final = Metric("membudget_enforcing", "1 when decisions are carried out, 0 in Observe mode.")
ENFORCEMENT_STOPPED: Final = Metric("membudget_enforcement_stopped", "1 while enforcement is stopped by hand.")
ACTIONS: Final = Metric("membudget_actions_total", "Actions by kind and by how they ended.", ("kind", "status"))
ACTION_HARMS: Final = Metric(
    "membudget_actions_harmful_total",
    "Effective actions after which pages were read again or requests got slower.",
    ("kind",),
)
ACTION_FREED: Final = Metric(
    "membudget_action_freed_bytes_total", "Bytes by which actions lowered the signal, as read.", ("kind",)
)
COMPONENT_OWNED: Final = Metric("membudget_component_owned_bytes", "Anonymous bytes a component owns.", ("component",))
COMPONENT_MAPPED: Final = Metric(
    "membudget_component_mapped_bytes", "Resident pages of a component's mapped files.", ("component",)
)
COMPONENT_BUDGET: Final = Metric("membudget_component_budget_bytes", "A component's ceiling.", ("component",))
COLLECTION_OWNED: Final = Metric(
    "membudget_collection_owned_bytes",
    "Bytes of a collection over all components: the 20 largest, and the rest together as other.",
    ("collection",),
)
ORDERS: Final = Metric("membudget_orders_total", "The controller's orders by how they were answered.", ("answer",))
ORDER_AGE: Final = Metric("membudget_order_age_seconds", "Seconds since an order was last accepted.")
BAD_SIGNATURES: Final = Metric(
    "membudget_bad_signatures_total", "Orders and report requests whose signature was not that of their key."
)
POLICY_INFO: Final = Metric("membudget_policy_info", "1 for the policy that the plan in force comes from.", ("policy",))
POLICY_PROBLEM: Final = Metric(
    "membudget_policy_problem", "1 while the newest policy is not in force as it was written."
)
PLAN_HELD: Final = Metric(
    "membudget_plan_held", "1 while the engine holds the plan in force, 0 while it holds another."
)
SPILL: Final = Metric("membudget_spill_bytes", "Values that were moved to the spill folder.")
SPILL_LIMIT: Final = Metric("membudget_spill_limit_bytes", "The bound of the spill folder.")
EVICTIONS: Final = Metric("membudget_evictions_total", "Entries that the engine evicted since it started.")
REFUSED: Final = Metric("membudget_refused_total", "Reservations that the engine refused since it started.")
ENGINE_UP: Final = Metric("membudget_engine_up", "1 when the engine answers on its control socket.")
READING_ERRORS: Final = Metric("membudget_reading_errors_total", "Readings that were absent.", ("reading",))
SAMPLE_SECONDS: Final = Metric("membudget_sample_cpu_seconds_total", "CPU time the sidecar spent on samples.")

ENGINE_QUERIES: Final = Metric("membudget_engine_queries_total", "Queries by how they were answered.", ("answer",))
ENGINE_QUERIES_REDUCED: Final = Metric(
    "membudget_engine_queries_reduced_total", "Queries answered with less effort because there was little room."
)
ENGINE_QUERIES_REFUSED: Final = Metric(
    "membudget_engine_queries_refused_total", "Queries refused because there was no room, to be asked again."
)
ENGINE_QUERY_SECONDS: Final = Metric("membudget_engine_query_duration_seconds", "Time to answer a query.")
ENGINE_CHUNKS: Final = Metric("membudget_engine_chunks", "Chunks in the open generation.", ("collection",))
ENGINE_INDEX_MAPPED: Final = Metric(
    "membudget_engine_index_mapped",
    "1 when the index is file-backed, as the kernel shows it.",
    ("collection",),
)
ENGINE_SEGMENTS: Final = Metric(
    "membudget_engine_segments", "Segments of the open generation; each is looked into by every query.", ("collection",)
)
ENGINE_DEAD_ROWS: Final = Metric(
    "membudget_engine_dead_rows", "Rows of segments that were replaced or deleted and not merged away.", ("collection",)
)
ENGINE_PUBLICATIONS: Final = Metric(
    "membudget_engine_publications_total", "Generations this writer published: seals and compactions.", ("kind",)
)
ENGINE_PUBLISHED_BYTES: Final = Metric(
    "membudget_engine_published_bytes_total", "Bytes this writer's seals and compactions wrote to files.", ("kind",)
)
ENGINE_COMPONENT_OWNED: Final = Metric(
    "membudget_engine_component_owned_bytes", "Anonymous bytes a component owns.", ("component",)
)
ENGINE_CACHE_ENTRIES: Final = Metric("membudget_engine_cache_entries", "Entries a cache holds.", ("cache",))
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
ENGINE_EMBEDDING_ENTRIES: Final = Metric(
    "membudget_engine_embedding_entries",
    "Vectors of texts that are kept, cold ones compressed.",
    ("level",),
)
ENGINE_EMBEDDING_HITS: Final = Metric(
    "membudget_engine_embedding_hits_total", "Look-ups of a text's vector that found it there.", ("level",)
)
ENGINE_EMBEDDING_MISSES: Final = Metric(
    "membudget_engine_embedding_misses_total",
    "Look-ups of a text's vector that did not find it there: those of cold were not answered at all.",
    ("level",),
)

CONTROLLER_POLICIES: Final = Metric("membudget_controller_policies", "Policies that are seen.")
CONTROLLER_POLICIES_KNOWN: Final = Metric(
    "membudget_controller_policies_known", "1 when policies are known; 0 stops every push, until a list succeeds."
)
CONTROLLER_PODS: Final = Metric("membudget_controller_pods", "Opted-in pods that run.")
CONTROLLER_PODS_PROGRAMMED: Final = Metric(
    "membudget_controller_pods_programmed", "Of these, pods that hold what they should."
)
CONTROLLER_ROLLOUTS_PAUSED: Final = Metric(
    "membudget_controller_rollouts_paused", "Policies whose rollout waits for a pod."
)
CONTROLLER_PUSHES: Final = Metric(
    "membudget_controller_pushes_total", "Orders sent, by what came of them.", ("result",)
)
CONTROLLER_PUSH_SECONDS: Final = Metric(
    "membudget_controller_push_duration_seconds", "From the connection to the answer of an order."
)
CONTROLLER_REPORTS: Final = Metric(
    "membudget_controller_reports_total", "Reports asked for, by what came.", ("result",)
)
CONTROLLER_RESIZES: Final = Metric(
    "membudget_controller_resizes_total", "Memory limits of pods that were to be changed, by what came.", ("result",)
)
CONTROLLER_PODS_RESIZING: Final = Metric(
    "membudget_controller_pods_resizing",
    "Pods whose policy asks for a memory limit, by how far they are; Resized have it.",
    ("status",),
)
CONTROLLER_RECONCILE_SECONDS: Final = Metric(
    "membudget_controller_reconcile_duration_seconds", "One look of the loop, with what it waited for."
)
CONTROLLER_WATCH_AGE: Final = Metric("membudget_controller_watch_age_seconds", "Since the last event of any watch.")
CONTROLLER_RECOMMENDED_TOTAL: Final = Metric(
    "membudget_controller_recommended_total_bytes",
    "Budget that would do for every pod of a policy, from what they were seen to need; never applied by itself.",
    ("namespace", "policy"),
)
CONTROLLER_RECOMMENDED_LIMIT: Final = Metric(
    "membudget_controller_recommended_limit_bytes",
    "Container limit that goes with the recommended budget.",
    ("namespace", "policy"),
)
CONTROLLER_WATCH_BEHIND: Final = Metric(
    "membudget_controller_watch_behind_seconds",
    "How long any watch has owed a change that a list showed; 0 in a quiet cluster, however old the last event is.",
)
CONTROLLER_KEY_NAMESPACES: Final = Metric(
    "membudget_controller_key_namespaces",
    "Namespaces that need the public keys, by whether they are there.",
    ("published",),
)
CONTROLLER_KEY_ROTATION: Final = Metric(
    "membudget_controller_key_rotation", "1 while pods learn the next key for orders."
)
