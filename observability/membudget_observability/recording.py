"""Recording rules: what alerts and dashboards would otherwise work out each time.

Covers: names as `level:metric:operations`, where the level says which labels are left. Does not cover alerts
(`alerting`) nor the file that both stand in (`rule_file`).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Recording(NamedTuple):
    """One rule: a name and what stands behind it."""

    name: str
    expression: str


def _cache_rate(counter: str) -> str:
    return f"rate(membudget_engine_cache_{counter}_total[5m])"


def _quantile(share: float) -> str:
    buckets = "membudget_engine_query_duration_seconds_bucket"
    return f"histogram_quantile({share}, sum without (answer) (rate({buckets}[5m])))"


def _sum_by_policy(figure: str) -> str:
    return f"sum by (policy) ({figure} * on (job, instance) group_left (policy) membudget_policy_info)"


RECORDINGS: Final = (
    Recording(
        "instance:membudget_signal_budget:ratio", "membudget_signal_bytes / ignoring (signal) membudget_budget_bytes"
    ),
    Recording(
        "instance:membudget_actions_ineffective:increase15m",
        'sum without (kind, status) (increase(membudget_actions_total{status="Ineffective"}[15m]))',
    ),
    Recording(
        "instance:membudget_action_freed_bytes:rate5m",
        "sum without (kind) (rate(membudget_action_freed_bytes_total[5m]))",
    ),
    Recording("policy:membudget_signal_bytes:sum", _sum_by_policy("membudget_signal_bytes")),
    Recording("policy:membudget_budget_bytes:sum", _sum_by_policy("membudget_budget_bytes")),
    Recording("policy:membudget_limit_bytes:sum", _sum_by_policy("membudget_limit_bytes")),
    Recording(
        "instance:membudget_engine_queries:rate5m", "sum without (answer) (rate(membudget_engine_queries_total[5m]))"
    ),
    Recording("instance:membudget_engine_query_duration_seconds:p50_rate5m", _quantile(0.5)),
    Recording("instance:membudget_engine_query_duration_seconds:p99_rate5m", _quantile(0.99)),
    Recording(
        "instance_cache:membudget_engine_cache_hits:ratio_rate5m",
        f"{_cache_rate('hits')} / ({_cache_rate('hits')} + {_cache_rate('misses')})",
    ),
    Recording(
        "instance:membudget_controller_pushes_failed:increase15m",
        'sum without (result) (increase(membudget_controller_pushes_total{result!="Acknowledged"}[15m]))',
    ),
)
