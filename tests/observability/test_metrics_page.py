"""docs/metrics.md is made of the one table of metrics, and whole."""

from __future__ import annotations

from collections import Counter

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric
from membudget_observability import metrics_page


def test_the_page_is_what_the_table_renders() -> None:
    """R-T04: `make observability` after a change."""
    assert metrics_page.rendered() == metrics_page.FILE.read_text()


def test_every_metric_stands_on_the_page_once() -> None:
    """R-T04: each belongs to one program."""
    listed = [metric.name for exporter in metrics_page.EXPORTERS for metric in metrics_page.metrics_of(exporter)]
    table = [value.name for value in vars(metric_names).values() if isinstance(value, Metric)]
    assert Counter(table) == Counter(listed)


def test_types_and_units_follow_from_names() -> None:
    """R-T04: as Prometheus' own practice has them."""
    told = {
        metric.name: (metrics_page.kind(metric), metrics_page.unit(metric))
        for metric in (
            metric_names.SIGNAL,
            metric_names.ACTION_FREED,
            metric_names.SAMPLE_SECONDS,
            metric_names.LIMIT_USAGE,
            metric_names.ENGINE_QUERY_SECONDS,
            metric_names.LEVEL,
        )
    }
    assert {
        "membudget_signal_bytes": ("gauge", "bytes"),
        "membudget_action_freed_bytes_total": ("counter", "bytes"),
        "membudget_sample_cpu_seconds_total": ("counter", "seconds"),
        "membudget_limit_usage_ratio": ("gauge", "ratio"),
        "membudget_engine_query_duration_seconds": ("histogram", "seconds"),
        "membudget_ladder_level": ("gauge", ""),
    } == told
