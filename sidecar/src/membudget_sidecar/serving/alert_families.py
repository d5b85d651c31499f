"""What alert rules and dashboards need beside the figures of a look, in at most a dozen series.

Covers: whose plan is in force and whether the engine holds it, how far a forecast may be trusted, the spill folder,
evictions and refusals. Does not cover usage, ladder and actions (`collector`, which passes these families on). A figure
that is not known is no series, never 0. Names and help: `membudget_contract.metric_names`.
"""

from __future__ import annotations

from collections.abc import Iterator

from membudget_contract import metric_names
from membudget_contract.control_api import Report
from membudget_contract.metric_names import Metric
from membudget_contract.plan import plan_hash
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.loop import Loop
from membudget_sidecar.serving.exposition import CounterMetricFamily, Family, GaugeMetricFamily


def alert_families(loop: Loop) -> Iterator[Family]:
    """All of them, as of the loop's last look."""
    yield from _plan(loop)
    yield from _forecast(loop)
    report = loop.link.report
    if report is not None:
        yield from _spill(loop, report)
        yield _counter(metric_names.EVICTIONS, report.evictions)
        yield _counter(metric_names.REFUSED, report.refused)


def _plan(loop: Loop) -> Iterator[Family]:
    plan, report = loop.keeper.effective, loop.link.report
    if plan.policy is not None:
        info = GaugeMetricFamily(
            metric_names.POLICY_INFO.name, metric_names.POLICY_INFO.help, metric_names.POLICY_INFO.labels
        )
        info.add_metric((plan.policy,), 1)
        yield info
    yield _gauge(metric_names.POLICY_PROBLEM, float(loop.keeper.problem is not None))
    if report is not None:
        yield _gauge(metric_names.PLAN_HELD, float(report.plan_hash == plan_hash(plan)))


def _forecast(loop: Loop) -> Iterator[Family]:
    foretold = loop.watch.forecast
    if not isinstance(foretold, Absent):
        yield _gauge(metric_names.LIMIT_FORECAST_CONFIDENCE, foretold.confidence)


def _spill(loop: Loop, report: Report) -> Iterator[Family]:
    yield _gauge(metric_names.SPILL, sum(part.spilled_bytes for part in report.components))
    yield _gauge(metric_names.SPILL_LIMIT, loop.keeper.effective.spill_max_bytes)


def _gauge(metric: Metric, value: float) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help)
    family.add_metric((), value)
    return family


def _counter(metric: Metric, value: float) -> Family:
    family = CounterMetricFamily(metric.name, metric.help)
    family.add_metric((), value)
    return family
