"""The sidecar's metrics, made from the loop's snapshots when they are scraped.

Covers: everything policy and alerts need, in at most 500 series whatever the engine reports. Does not measure: a
reading that is absent is no series, never 0. Names and help: `membudget_contract.metric_names`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric
from membudget_contract.policy import Mode
from membudget_sidecar.engine_link import CONNECTED
from membudget_sidecar.loop import Loop
from membudget_sidecar.order_gate import OrderGate
from membudget_sidecar.sample import Sample

COMPONENTS: Final = 40
"""Exported of each family, those that own most; their names come from the engine and from policies."""

Values = Mapping[tuple[str, ...], float | None]


class SidecarCollector(Collector):
    """One collector for all families; those of orders only with a gate."""

    def __init__(self, loop: Loop, gate: OrderGate | None = None, wall: Callable[[], float] = time.time) -> None:
        self._loop = loop
        self._gate = gate
        self._wall = wall

    def collect(self) -> Iterator[Family]:
        """Usage, budget, components, ladder, actions and the sidecar's own cost."""
        yield from self._usage()
        yield from self._components()
        yield from self._ladder()
        if self._gate is not None:
            yield from self._orders(self._gate)
        tally = self._loop.tally
        absent = {(name,): count for name, count in list(tally.absent_readings.items())}
        yield _counter(metric_names.READING_ERRORS, absent)
        yield _counter(metric_names.SAMPLE_SECONDS, {(): tally.sample_cpu_seconds})

    def _usage(self) -> Iterator[Family]:
        plan, watch, link = self._loop.keeper.effective, self._loop.watch, self._loop.link
        sample = watch.sample
        resident = sample.process.resident if isinstance(sample, Sample) else None
        yield _gauge(metric_names.SIGNAL, {(plan.signal.value,): _number(watch.used.bytes)})
        yield _gauge(metric_names.BUDGET, {(): plan.total_bytes})
        yield _gauge(metric_names.LIMIT, {(): watch.limit})
        yield _gauge(metric_names.RESIDENT, {(): _number(resident)})
        yield _gauge(metric_names.ROOM, {(): link.report.room_bytes if link.report else None})
        yield _gauge(metric_names.ENGINE_UP, {(): float(link.state == CONNECTED)})

    def _components(self) -> Iterator[Family]:
        report = self._loop.link.report
        reported = report.components if report else ()
        parts = sorted(reported, key=lambda part: part.owned_bytes, reverse=True)[:COMPONENTS]
        yield _gauge(metric_names.COMPONENT_OWNED, {(part.name,): part.owned_bytes for part in parts})
        yield _gauge(metric_names.COMPONENT_MAPPED, {(part.name,): part.mapped_bytes for part in parts})
        budgets = sorted(self._loop.keeper.effective.components.items(), key=lambda item: item[1], reverse=True)
        yield _gauge(metric_names.COMPONENT_BUDGET, {(name,): budget for name, budget in budgets[:COMPONENTS]})

    def _ladder(self) -> Iterator[Family]:
        loop = self._loop
        ladder = loop.watch.ladder
        yield _gauge(metric_names.LEVEL, {(): ladder.level.rank})
        yield _gauge(metric_names.ENFORCING, {(): float(loop.keeper.effective.mode is Mode.ENFORCE)})
        yield _counter(metric_names.TRANSITIONS, {(): ladder.transitions})
        tally = loop.tally
        actions = {(kind.value, ended.value): count for (kind, ended), count in list(tally.actions.items())}
        yield _counter(metric_names.ACTIONS, actions)
        freed = {(kind.value,): count for kind, count in list(tally.freed_bytes.items())}
        yield _counter(metric_names.ACTION_FREED, freed)

    def _orders(self, gate: OrderGate) -> Iterator[Family]:
        accepted_at = gate.orders.accepted_at
        age = None if accepted_at is None else max(0.0, self._wall() - accepted_at)
        yield _counter(metric_names.ORDERS, {(answer,): count for answer, count in list(gate.answers.items())})
        yield _gauge(metric_names.ORDER_AGE, {(): age})
        yield _counter(metric_names.BAD_SIGNATURES, {(): gate.bad_signatures})


def _number(reading: object) -> float | None:
    return float(reading) if isinstance(reading, int) else None


def _gauge(metric: Metric, values: Values) -> Family:
    return _filled(GaugeMetricFamily(metric.name, metric.help, labels=metric.labels), values)


def _counter(metric: Metric, values: Values) -> Family:
    return _filled(CounterMetricFamily(metric.name, metric.help, labels=metric.labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Family:
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, value)
    return family
