import re

import pytest

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric

METRICS = [value for value in vars(metric_names).values() if isinstance(value, Metric)]

BASE_UNITS = {"bytes", "seconds", "ratio", "total"}
COUNTS_AND_STATES = {
    "membudget_ladder_level",
    "membudget_enforcing",
    "membudget_enforcement_stopped",
    "membudget_alert_active",
    "membudget_engine_up",
    "membudget_engine_chunks",
    "membudget_engine_index_mapped",
    "membudget_engine_segments",
    "membudget_engine_dead_rows",
    "membudget_policy_info",
    "membudget_policy_problem",
    "membudget_plan_held",
    "membudget_engine_cache_entries",
    "membudget_engine_embedding_entries",
    "membudget_controller_policies",
    "membudget_controller_policies_known",
    "membudget_controller_pods",
    "membudget_controller_pods_programmed",
    "membudget_controller_pods_resizing",
    "membudget_controller_rollouts_paused",
    "membudget_controller_key_namespaces",
    "membudget_controller_key_rotation",
}
"""Gauges without a unit; a new one is added here on purpose."""

COUNTED = re.compile(
    r"_(transitions|actions|errors|queries|hits|misses|evictions|refused|freed|cpu|orders|signatures|faults|refaults|hits|kills|alerts|collections|collected|pushes|publications|published|reports|resizes)(_|$)"
)
"""Words that say that a figure only grows."""

BOUNDED_LABELS = {
    "signal",
    "kind",
    "status",
    "component",
    "reading",
    "answer",
    "collection",
    "cache",
    "level",
    "alert",
    "policy",
    "result",
    "published",
    "namespace",  # beside a policy's name only
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_is_lower_case_with_the_prefix_of_the_product(metric: Metric) -> None:
    """R-S10: one prefix, and nothing that a query would have to quote."""
    assert re.fullmatch(r"membudget(_[a-z]+)+", metric.name)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_ends_in_its_base_unit(metric: Metric) -> None:
    """R-S10: bytes and seconds, never mebibytes or milliseconds."""
    assert metric.name.rsplit("_", 1)[1] in BASE_UNITS or metric.name in COUNTS_AND_STATES
    assert not re.search(r"_(mb|mib|kib|kb|ms|milliseconds|percent|pct)(_|$)", metric.name)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_counters_and_only_counters_end_in_total(metric: Metric) -> None:
    """R-S10: `rate()` is right for exactly these."""
    assert metric.name.endswith("_total") == bool(COUNTED.search(metric.name))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_help_is_a_sentence(metric: Metric) -> None:
    """R-S10: it stands in Grafana's tooltip."""
    assert re.fullmatch(r"[A-Z0-9][^\n]{10,120}\.", metric.help)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_labels_have_bounded_values(metric: Metric) -> None:
    """R-S10: no pid, session or query, which would make a series for each."""
    assert set(metric.labels) <= BOUNDED_LABELS
    assert len(set(metric.labels)) == len(metric.labels)


def test_no_two_metrics_share_a_name() -> None:
    """R-S10: a registry would refuse the second."""
    names = [metric.name for metric in METRICS]
    assert sorted(set(names)) == sorted(names)
