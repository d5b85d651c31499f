"""The controller's metrics.

Covers: names, help and holders, on a registry that the caller brings. Does not serve them (`probes`). No label holds
the name of a pod or policy: there are a few dozen series whatever the cluster holds.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """One holder for each family."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.policies = Gauge("membudget_controller_policies", "Policies that are seen.", registry=registry)
        self.policies_known = Gauge(
            "membudget_controller_policies_known",
            "1 when policies are known; 0 stops every push, until a list succeeds.",
            registry=registry,
        )
        self.pods = Gauge("membudget_controller_pods", "Opted-in pods that run.", registry=registry)
        self.programmed = Gauge(
            "membudget_controller_pods_programmed", "Of these, pods that hold what they should.", registry=registry
        )
        self.rollouts_paused = Gauge(
            "membudget_controller_rollouts_paused", "Policies whose rollout waits for a pod.", registry=registry
        )
        self.pushes = Counter(
            "membudget_controller_pushes_total", "Orders sent, by what came of them.", ("result",), registry=registry
        )
        self.push_seconds = Histogram(
            "membudget_controller_push_duration_seconds",
            "From the connection to the answer of an order.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.reports = Counter(
            "membudget_controller_reports_total", "Reports asked for, by what came.", ("result",), registry=registry
        )
        self.reconcile_seconds = Histogram(
            "membudget_controller_reconcile_duration_seconds",
            "One look of the loop, with what it waited for.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.watch_age = Gauge(
            "membudget_controller_watch_age_seconds", "Since the last event of any watch.", registry=registry
        )
        self.key_namespaces = Gauge(
            "membudget_controller_key_namespaces",
            "Namespaces that need the public key, by whether it is there.",
            ("published",),
            registry=registry,
        )

    def follow_watch(self, age: Callable[[], float]) -> None:
        """Read the age of the last event whenever somebody looks."""
        self.watch_age.set_function(age)
