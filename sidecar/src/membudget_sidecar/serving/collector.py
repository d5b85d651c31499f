"""The sidecar's metrics, made from the loop's snapshots when they are scraped.

Covers: everything policy and alerts need, in at most 500 series whatever the engine reports. Does not measure: a
reading that is absent is no series, never 0. Names and help: `membudget_contract.metric_names`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from membudget_contract import metric_names
from membudget_contract.control_api import CollectionReport, Means
from membudget_contract.metric_names import Metric
from membudget_contract.policy import Mode
from membudget_contract.policy_alerts import AlertName
from membudget_contract.sidecar_api import ActionKind, ActionStatus
from membudget_sidecar.acting.engine_link import CONNECTED
from membudget_sidecar.acting.observed_link import OBSERVED
from membudget_sidecar.deciding.breakdown import collection_uses
from membudget_sidecar.kernel.reading import Absent, Fraction
from membudget_sidecar.kernel.sample import Sample
from membudget_sidecar.loop import Loop
from membudget_sidecar.plans.order_gate import OrderGate
from membudget_sidecar.serving.alert_families import alert_families
from membudget_sidecar.serving.exposition import Collector, CounterMetricFamily, Family, GaugeMetricFamily

COMPONENTS: Final = 40
"""Exported of each family, those that own most; their names come from the engine and from policies."""
COLLECTIONS: Final = 20
OTHER: Final = "other"
"""All the smaller collections, and one that is called so."""
SUSPECTS: Final = 10
_ENDINGS: Final = tuple(
    (kind.value, ended.value)
    for kind, ended in itertools.product(ActionKind, ActionStatus)
    if ended not in {ActionStatus.QUEUED, ActionStatus.RUNNING, ActionStatus.HARMFUL}
)
"""Counted from 0 on: of a counter that begins at 1, `increase()` misses the first."""
_FREEING: Final = tuple((means.value,) for means in Means)

Values = Mapping[tuple[str, ...], float | None]


class SidecarCollector(Collector):
    """One collector for all families; those of orders only with a gate."""

    def __init__(self, loop: Loop, gate: OrderGate | None = None, wall: Callable[[], float] = time.time) -> None:
        self._loop = loop
        self._gate = gate
        self._wall = wall

    def collect(self) -> Iterator[Family]:
        """Usage, budget, kernel, components, ladder, alerts, actions and the sidecar's own cost."""
        yield from self._usage()
        yield from self._process()
        yield from self._cgroup()
        yield from self._components()
        yield from self._outlook()
        yield from alert_families(self._loop)
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
        yield _gauge(metric_names.PRESSURE, {(): _number(watch.history.pressure(plan.total_bytes))})
        yield _gauge(metric_names.SIGNAL_PEAK, {(): _number(watch.history.peak())})
        seen = watch.seen
        yield _gauge(metric_names.UNMANAGED, {(): seen.unmanaged_bytes if seen else None})
        yield _gauge(metric_names.ROOM, {(): link.report.room_bytes if link.report else None})
        if link.state != OBSERVED:  # it has no control socket, so that it does not answer says nothing
            yield _gauge(metric_names.ENGINE_UP, {(): float(link.state == CONNECTED)})

    def _process(self) -> Iterator[Family]:
        sample, report = self._loop.watch.sample, self._loop.link.report
        if isinstance(sample, Sample):
            read = sample.process
            kinds = {
                "anonymous": read.anonymous,
                "file": read.file,
                "shmem": read.shmem,
                "swap": read.swap,
                "page_tables": read.page_tables,
            }
            yield _gauge(metric_names.PROCESS_MEMORY, {(kind,): _number(value) for kind, value in kinds.items()})
            faults = {"minor": read.minor_faults, "major": read.major_faults}
            yield _counter(metric_names.PROCESS_FAULTS, {(kind,): _number(value) for kind, value in faults.items()})
            yield _gauge(metric_names.AVAILABLE, {(): _number(sample.available)})
            yield _gauge(metric_names.LIMIT_USAGE, {(): _ratio(sample.limit_percent)})
        yield _counter(metric_names.GC_COLLECTIONS, {(): report.gc.collections if report else None})
        yield _counter(metric_names.GC_COLLECTED, {(): report.gc.collected if report else None})

    def _cgroup(self) -> Iterator[Family]:
        sample = self._loop.watch.sample
        read = sample.cgroup if isinstance(sample, Sample) else sample
        if isinstance(read, Absent):
            return
        kinds = {
            "usage": read.usage,
            "working_set": read.working_set,
            "unreclaimable": read.unreclaimable,
            "swap": read.swap,
        }
        yield _gauge(metric_names.CGROUP_MEMORY, {(kind,): _number(value) for kind, value in kinds.items()})
        yield _counter(metric_names.CGROUP_LIMIT_HITS, {(): _number(read.limit_hits)})
        yield _counter(metric_names.CGROUP_OOM_KILLS, {(): _number(read.oom_kills)})
        yield _counter(metric_names.CGROUP_REFAULTS, {(): _number(read.refaults)})
        yield _gauge(metric_names.CGROUP_STALL, {(): _ratio(read.stall_percent)})

    def _outlook(self) -> Iterator[Family]:
        watch, alerts = self._loop.watch, self._loop.alerts
        foretold = watch.forecast
        seconds = None if isinstance(foretold, Absent) else foretold.seconds
        yield _gauge(metric_names.LIMIT_FORECAST, {(): seconds})
        suspects = sorted(watch.leaks.suspects, key=lambda each: each.grown_bytes, reverse=True)[:SUSPECTS]
        yield _gauge(metric_names.LEAK_SUSPECTED, {(each.subject,): each.grown_bytes for each in suspects})
        active = {alert.name for alert in alerts.active}
        yield _gauge(metric_names.ALERT_ACTIVE, {(name.value,): float(name in active) for name in AlertName})
        yield _counter(metric_names.ALERTS, {(name.value,): alerts.by_name[name] for name in AlertName})

    def _components(self) -> Iterator[Family]:
        report = self._loop.link.report
        reported = report.components if report else ()
        parts = sorted(reported, key=lambda part: part.owned_bytes, reverse=True)[:COMPONENTS]
        yield _gauge(metric_names.COMPONENT_OWNED, {(part.name,): part.owned_bytes for part in parts})
        yield _gauge(metric_names.COMPONENT_MAPPED, {(part.name,): part.mapped_bytes for part in parts})
        budgets = sorted(self._loop.keeper.effective.components.items(), key=lambda item: item[1], reverse=True)
        yield _gauge(metric_names.COMPONENT_BUDGET, {(name,): budget for name, budget in budgets[:COMPONENTS]})
        yield _gauge(metric_names.COLLECTION_OWNED, _collections(report.collections if report else ()))

    def _ladder(self) -> Iterator[Family]:
        loop = self._loop
        ladder = loop.watch.ladder
        yield _gauge(metric_names.LEVEL, {(): ladder.level.rank})
        yield _gauge(metric_names.ENFORCING, {(): float(loop.keeper.effective.mode is Mode.ENFORCE)})
        stopped = loop.keeper.enforcement.stopped_until is not None
        yield _gauge(metric_names.ENFORCEMENT_STOPPED, {(): float(stopped)})
        yield _counter(metric_names.TRANSITIONS, {(): ladder.transitions})
        tally = loop.tally
        counted = {(kind.value, ended.value): count for (kind, ended), count in list(tally.actions.items())}
        yield _counter(metric_names.ACTIONS, dict.fromkeys(_ENDINGS, 0) | counted)
        harms = {(kind.value,): count for kind, count in list(tally.harms.items())}
        yield _counter(metric_names.ACTION_HARMS, dict.fromkeys(_FREEING, 0) | harms)
        freed = {(kind.value,): count for kind, count in list(tally.freed_bytes.items())}
        yield _counter(metric_names.ACTION_FREED, dict.fromkeys(_FREEING, 0) | freed)

    def _orders(self, gate: OrderGate) -> Iterator[Family]:
        accepted_at = gate.orders.accepted_at
        age = None if accepted_at is None else max(0.0, self._wall() - accepted_at)
        yield _counter(metric_names.ORDERS, {(answer,): count for answer, count in list(gate.answers.items())})
        yield _gauge(metric_names.ORDER_AGE, {(): age})
        yield _counter(metric_names.BAD_SIGNATURES, {(): gate.bad_signatures})


def _collections(reports: tuple[CollectionReport, ...]) -> dict[tuple[str, ...], float]:
    largest: dict[tuple[str, ...], float] = {}
    other = 0
    for use in collection_uses(reports):
        if len(largest) < COLLECTIONS and use.name != OTHER:
            largest[use.name,] = use.owned_bytes
        else:
            other += use.owned_bytes
    return {**largest, (OTHER,): other} if reports else {}


def _number(reading: float | Absent | None) -> float | None:
    return float(reading) if isinstance(reading, int | float) else None


def _ratio(percent: Fraction) -> float | None:
    return None if isinstance(percent, Absent) else percent / 100


def _gauge(metric: Metric, values: Values) -> Family:
    return _filled(GaugeMetricFamily(metric.name, metric.help, labels=metric.labels), values)


def _counter(metric: Metric, values: Values) -> Family:
    return _filled(CounterMetricFamily(metric.name, metric.help, labels=metric.labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Family:
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, value)
    return family
