"""The controller's metrics.

Covers: holders for the names in `membudget_contract.metric_names`, on a registry that the caller brings. Does not serve
them (`probes`). No label holds the name of a pod; that of a policy is held by what is recommended for it, two series
each: besides there are a few dozen series whatever the cluster holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from membudget_contract import metric_names as names
from membudget_contract.metric_names import Metric
from membudget_contract.recommendations_api import PolicyRecommendations

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """One holder for each family."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(metric: Metric) -> Gauge:
            return Gauge(metric.name, metric.help, metric.labels, registry=registry)

        def counter(metric: Metric) -> Counter:
            return Counter(metric.name, metric.help, metric.labels, registry=registry)

        def histogram(metric: Metric) -> Histogram:
            return Histogram(metric.name, metric.help, metric.labels, buckets=_SECONDS, registry=registry)

        self.policies = gauge(names.CONTROLLER_POLICIES)
        self.policies_known = gauge(names.CONTROLLER_POLICIES_KNOWN)
        self.pods = gauge(names.CONTROLLER_PODS)
        self.programmed = gauge(names.CONTROLLER_PODS_PROGRAMMED)
        self.rollouts_paused = gauge(names.CONTROLLER_ROLLOUTS_PAUSED)
        self.pushes = counter(names.CONTROLLER_PUSHES)
        self.push_seconds = histogram(names.CONTROLLER_PUSH_SECONDS)
        self.reports = counter(names.CONTROLLER_REPORTS)
        self.resizes = counter(names.CONTROLLER_RESIZES)
        for result in ("Patched", "Refused"):
            self.resizes.labels(result)  # from the start: a rate needs the figure before the first
        self.resizing = gauge(names.CONTROLLER_PODS_RESIZING)
        self.reconcile_seconds = histogram(names.CONTROLLER_RECONCILE_SECONDS)
        self.watch_age = gauge(names.CONTROLLER_WATCH_AGE)
        self.watch_behind = gauge(names.CONTROLLER_WATCH_BEHIND)
        self.key_namespaces = gauge(names.CONTROLLER_KEY_NAMESPACES)
        self.key_rotation = gauge(names.CONTROLLER_KEY_ROTATION)

    def follow_watches(self, age: Callable[[], float], behind: Callable[[], float]) -> None:
        """Read the age of the last event, and how long one is owed, whenever somebody looks."""
        self.watch_age.set_function(age)
        self.watch_behind.set_function(behind)


class RecommendedBudgets(Collector):
    """Worked out at each scrape, so that a policy that is gone leaves no series behind."""

    def __init__(self, recommended: Callable[[], PolicyRecommendations]) -> None:
        self._recommended = recommended

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Total and limit of each policy whose pods were seen for long enough."""
        totals, limits = (
            GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for metric in (names.CONTROLLER_RECOMMENDED_TOTAL, names.CONTROLLER_RECOMMENDED_LIMIT)
        )
        for one in self._recommended().policies:
            for family, figure in ((totals, one.total_bytes), (limits, one.limit_bytes)):
                if figure is not None:
                    family.add_metric((one.namespace, one.policy), figure)
        yield totals
        yield limits
