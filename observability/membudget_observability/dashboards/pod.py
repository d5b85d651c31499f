"""One pod: why its memory is what it is, what was done about it, what is to come."""

from __future__ import annotations

from typing import Final

from membudget_observability.dashboards.panel import Dashboard, Panel, Query, Row, Show, Unit, Variable, figure

_IN: Final = 'namespace=~"$namespace", pod=~"$pod"'


def _of(metric: str, more: str = "") -> str:
    return f"{metric}{{{_IN}{', ' + more if more else ''}}}"


def _rate(metric: str) -> str:
    return f"rate({_of(metric)}[$__rate_interval])"


_NOW: Final = Row("Now", (
    figure("Use of the budget", "How full is it?", Unit.RATIO, f"max({_of('instance:membudget_signal_budget:ratio')})",
           0.8, 0.93, 1),
    figure("Use of the limit", "How near is the kernel's kill?", Unit.RATIO,
           f"max({_of('membudget_limit_usage_ratio')})", 0.8, 0.9),
    figure("Level of the ladder", "0 normal, 1 soft, 2 hard, 3 emergency.", Unit.COUNT,
           f"max({_of('membudget_ladder_level')})", 1, 3),
    figure("Room", "How much more may caches take before the ladder acts?", Unit.BYTES,
           f"min({_of('membudget_room_bytes')})"),
    figure("Highest use", "How high was it since the engine started?", Unit.BYTES,
           f"max({_of('membudget_signal_peak_bytes')})"),
    figure("OOM kills", "How often did the kernel kill in this container?", Unit.COUNT,
           f"sum({_of('membudget_cgroup_oom_kills_total')}) or vector(0)", 1),
))  # fmt: skip

_MEMORY: Final = Row("Memory", (
    Panel("Use, budget, limit", "Is it inside its budget?", Unit.BYTES, (
        Query(_of("membudget_limit_bytes"), "limit"),
        Query(_of("membudget_budget_bytes"), "budget"),
        Query(_of("membudget_signal_bytes"), "use"),
    ), width=12),
    Panel("Who owns it", "Which component holds the memory, and how much does nobody manage?", Unit.BYTES, (
        Query(_of("membudget_unmanaged_bytes"), "unmanaged"),
        Query(_of("membudget_component_owned_bytes"), "{{component}}"),
    ), Show.STACK, width=12),
    Panel("Ceilings", "How much may each component hold at most?", Unit.BYTES, (
        Query(_of("membudget_component_budget_bytes"), "{{component}}"),
    ), Show.STEPS),
    Panel("Process by kind", "What kind of memory is it?", Unit.BYTES, (
        Query(_of("membudget_engine_process_memory_bytes"), "{{kind}}"),
    )),
    Panel("Container by measure", "What do kernel and kubelet count?", Unit.BYTES, (
        Query(_of("membudget_cgroup_memory_bytes"), "{{kind}}"),
    )),
    Panel("Collections", "Which collections hold it: the largest, and the rest as other?", Unit.BYTES, (
        Query(_of("membudget_collection_owned_bytes"), "{{collection}}"),
    ), Show.STACK),
    Panel("Mapped pages", "Which components' files are resident?", Unit.BYTES, (
        Query(_of("membudget_component_mapped_bytes"), "{{component}}"),
    )),
    Panel("Spill folder", "How much was moved to disk, and how much fits?", Unit.BYTES, (
        Query(_of("membudget_spill_limit_bytes"), "bound"),
        Query(_of("membudget_spill_bytes"), "spilled"),
    )),
))  # fmt: skip

_ACTIONS: Final = Row("What was done", (
    Panel("Level of the ladder", "When did which rung act: 1 soft, 2 hard, 3 emergency?", Unit.COUNT, (
        Query(_of("membudget_ladder_level"), "level"),
    ), Show.STEPS),
    Panel("Actions", "Which actions ran, and how did they end?", Unit.PER_SECOND, (
        Query(f"{_rate('membudget_actions_total')} > 0", "{{kind}} {{status}}"),
        Query(f"sum({_rate('membudget_actions_harmful_total')}) or vector(0)", "freed and then hurt"),
    )),
    Panel("Freed by actions", "By how much did actions lower the signal, as read?", Unit.BYTES_PER_SECOND, (
        Query(_rate("membudget_action_freed_bytes_total"), "{{kind}}"),
    )),
    Panel("Evictions and refusals", "How much of what is cached is given up, or never taken?", Unit.PER_SECOND, (
        Query(_rate("membudget_evictions_total"), "evicted"),
        Query(_rate("membudget_refused_total"), "refused"),
    )),
    Panel("Page faults and refaults", "Does giving memory back cost reads?", Unit.PER_SECOND, (
        Query(_rate("membudget_engine_process_faults_total"), "{{kind}} faults"),
        Query(_rate("membudget_cgroup_refaults_total"), "refaults"),
    )),
    Panel("Enforcement stopped by hand", "1: decisions are told and not carried out.", Unit.COUNT, (
        Query(_of("membudget_enforcement_stopped"), "stopped"),
    ), Show.STEPS),
    Panel("Changes of the level", "Does the ladder swing?", Unit.PER_SECOND, (
        Query(_rate("membudget_ladder_transitions_total"), "changes"),
    )),
    Panel("At the limit", "How often does the container meet its limit and the kernel reclaim?", Unit.PER_SECOND, (
        Query(_rate("membudget_cgroup_limit_hits_total"), "limit hits"),
    )),
    Panel("Waiting for memory", "Do tasks stand still for want of memory? Only cgroup v2 tells.", Unit.RATIO, (
        Query(_of("membudget_cgroup_stall_ratio"), "share of the last 10 s"),
    )),
))  # fmt: skip

_OUTLOOK: Final = Row("What is to come", (
    Panel("Time to the limit", "When is the limit met if growth goes on as it did?", Unit.SECONDS, (
        Query(_of("membudget_limit_forecast_seconds"), "forecast"),
    )),
    Panel("Suspected leaks", "What grows and gives nothing back?", Unit.BYTES, (
        Query(_of("membudget_leak_suspected_bytes"), "{{component}}"),
    )),
    Panel("Alerts of the policy", "Which figures of the policy's alerts are passed?", Unit.COUNT, (
        Query(f"{_of('membudget_alert_active')} == 1", "{{alert}}"),
    ), Show.STEPS),
))  # fmt: skip

_SIDECAR: Final = Row("The sidecar itself", (
    Panel("CPU of its looks", "What does looking cost, in cores?", Unit.RATIO, (
        Query(_rate("membudget_sample_cpu_seconds_total"), "share of a core"),
    ), width=12),
    Panel("Readings that were absent", "What could not be read?", Unit.PER_SECOND, (
        Query(_rate("membudget_reading_errors_total"), "{{reading}}"),
    ), width=12),
))  # fmt: skip

POD: Final = Dashboard(
    "pod",
    "membudget / Pod",
    "Why is a pod's memory what it is, what was done about it, and what is to come?",
    (
        Variable("namespace", "membudget_budget_bytes"),
        Variable("pod", 'membudget_budget_bytes{namespace=~"$namespace"}'),
    ),
    (_NOW, _MEMORY, _ACTIONS, _OUTLOOK, _SIDECAR),
)
