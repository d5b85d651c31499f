"""The fleet: is every pod inside its budget, and do the controller's orders arrive?"""

from __future__ import annotations

from typing import Final

from membudget_observability.dashboards.panel import Dashboard, Panel, Query, Row, Show, Unit, Variable, figure

_IN: Final = 'namespace=~"$namespace"'
_RATIO: Final = f"instance:membudget_signal_budget:ratio{{{_IN}}}"


def _count(condition: str) -> str:
    """None is a figure here: 0, not an empty panel."""
    return f"count({condition}) or vector(0)"


def _at_level(level: int) -> str:
    return _count(f"membudget_ladder_level{{{_IN}}} == {level}")


_NOW: Final = Row("Now", (
    figure("Pods", "How many pods have a sidecar that is scraped?", Unit.COUNT,
           _count(f"membudget_budget_bytes{{{_IN}}}")),
    figure("Over budget", "How many use more than their budget?", Unit.COUNT, _count(f"{_RATIO} > 1"), 1),
    figure("On a rung", "In how many does the ladder free memory?", Unit.COUNT,
           _count(f"membudget_ladder_level{{{_IN}}} > 0"), 1),
    figure("Engines unreachable", "How many engines do not answer their sidecar?", Unit.COUNT,
           _count(f"membudget_engine_up{{{_IN}}} == 0"), 1),
    figure("Pods behind", "How many pods do not hold yet what the controller wants them to?", Unit.COUNT,
           "sum(membudget_controller_pods - membudget_controller_pods_programmed)", 1),
    figure("Alerts", "How many of membudget's alerts fire?", Unit.COUNT,
           _count('ALERTS{alertname=~"Membudget.*", alertstate="firing", severity!="info"}'), 1),
))  # fmt: skip

_MEMORY: Final = Row("Memory", (
    Panel("Fleet: use, budget, limit", "How much does the fleet use, and how much was it given?", Unit.BYTES, (
        Query(f"sum(membudget_limit_bytes{{{_IN}}})", "limit"),
        Query(f"sum(membudget_budget_bytes{{{_IN}}})", "budget"),
        Query(f"sum(membudget_signal_bytes{{{_IN}}})", "use"),
    ), width=12),
    Panel("Use of the budget: the ten highest", "Which pods are nearest to their budget?", Unit.RATIO, (
        Query(f"topk(10, {_RATIO})", "{{pod}}"),
    ), width=12, warn_at=(0.8, 0.93, 1.0)),
    Panel("Distance to the limit: the ten nearest", "Which containers would be killed first?", Unit.BYTES, (
        Query(f"bottomk(10, membudget_available_bytes{{{_IN}}})", "{{pod}}"),
    )),
    Panel("Pods by level of the ladder", "Is memory short in single pods or everywhere?", Unit.COUNT, (
        Query(_at_level(0), "normal"),
        Query(_at_level(1), "soft"),
        Query(_at_level(2), "hard"),
        Query(_at_level(3), "emergency"),
    ), Show.STACK),
    Panel("Freed by actions", "How much memory do actions free, as the kernel shows it?", Unit.BYTES_PER_SECOND, (
        Query(f"sum by (namespace) (instance:membudget_action_freed_bytes:rate5m{{{_IN}}})", "{{namespace}}"),
    )),
))  # fmt: skip

_CONTROLLER: Final = Row("Controller", (
    Panel("Pods and pods that hold their plan", "Has the newest plan arrived everywhere?", Unit.COUNT, (
        Query("membudget_controller_pods", "pods"),
        Query("membudget_controller_pods_programmed", "hold their plan"),
        Query("membudget_controller_rollouts_paused", "rollouts that wait"),
    ), Show.STEPS),
    Panel("Orders by what came of them", "Are orders acknowledged?", Unit.PER_SECOND, (
        Query("sum by (result) (rate(membudget_controller_pushes_total[$__rate_interval]))", "{{result}}"),
    )),
    Panel("Time to an acknowledgement", "How long does an order take, from the connection on?", Unit.SECONDS, (
        Query("histogram_quantile(0.5, sum by (le)"
              " (rate(membudget_controller_push_duration_seconds_bucket[$__rate_interval])))", "half"),
        Query("histogram_quantile(0.99, sum by (le)"
              " (rate(membudget_controller_push_duration_seconds_bucket[$__rate_interval])))", "99 of 100"),
    )),
    Panel("Watches", "Does the API server still tell of changes? A quiet cluster ages; a dead watch falls behind.",
          Unit.SECONDS, (
        Query("membudget_controller_watch_age_seconds", "since the last event"),
        Query("membudget_controller_watch_behind_seconds", "behind a list"),
    )),
    Panel("Time of one look", "Does the controller keep up?", Unit.SECONDS, (
        Query("histogram_quantile(0.99, sum by (le)"
              " (rate(membudget_controller_reconcile_duration_seconds_bucket[$__rate_interval])))", "99 of 100"),
    )),
    Panel("Reports by what came of them", "Do pods answer when they are asked how they are?", Unit.PER_SECOND, (
        Query("sum by (result) (rate(membudget_controller_reports_total[$__rate_interval]))", "{{result}}"),
    )),
    Panel("Policies and keys", "Are policies known, and do namespaces have the keys that orders are believed by?",
          Unit.COUNT, (
        Query("membudget_controller_policies", "policies"),
        Query("membudget_controller_policies_known", "known: 1"),
        Query('membudget_controller_key_namespaces{published="false"}', "namespaces without the keys"),
        Query("membudget_controller_key_rotation", "rotating: 1"),
    ), Show.STEPS),
    Panel("Pods by how far their limit is", "Whose memory limit is being changed, and what holds it up?", Unit.COUNT, (
        Query("sum by (status) (membudget_controller_pods_resizing)", "{{status}}"),
    ), Show.STEPS),
    Panel("Limits changed", "Are limits that are due changed, or refused?", Unit.PER_SECOND, (
        Query("sum by (result) (rate(membudget_controller_resizes_total[$__rate_interval]))", "{{result}}"),
    )),
))  # fmt: skip

FLEET: Final = Dashboard(
    "fleet",
    "membudget / Fleet",
    "Is every pod inside its budget, and do the controller's orders arrive?",
    (Variable("namespace", "membudget_budget_bytes", several=True),),
    (_NOW, _MEMORY, _CONTROLLER),
)
