"""One policy: what it gives its pods, what they make of it, whether it is in force as it was written."""

from __future__ import annotations

from typing import Final

from membudget_observability.dashboards.panel import Dashboard, Panel, Query, Row, Show, Unit, Variable, figure

_INFO: Final = 'membudget_policy_info{policy=~"$policy"}'
_OF: Final = '{policy=~"$policy"}'


def _of_policy(figures: str) -> str:
    """The series of those instances that follow the policy."""
    return f"{figures} * on (job, instance) group_left (policy) {_INFO}"


def _recommended(figure: str) -> str:
    """By the policy's whole name; Prometheus calls a namespace that a metric names itself `exported_namespace`."""
    joined = (
        f'label_join(membudget_controller_recommended_{figure}_bytes, "policy", "/", "exported_namespace", "policy")'
    )
    return f"max by (policy) ({joined} and on (policy) {_INFO})"


_USE: Final = _of_policy("instance:membudget_signal_budget:ratio")

_NOW: Final = Row("Now", (
    figure("Pods", "How many pods follow it?", Unit.COUNT, f"count({_INFO}) or vector(0)"),
    figure("Budget", "What do its pods have together?", Unit.BYTES, f"sum(policy:membudget_budget_bytes:sum{_OF})"),
    figure("Use", "What do they use of it?", Unit.RATIO,
           f"sum(policy:membudget_signal_bytes:sum{_OF}) / sum(policy:membudget_budget_bytes:sum{_OF})", 0.8, 0.93, 1),
    figure("Highest pod", "How full is the fullest of them?", Unit.RATIO, f"max({_USE})", 0.8, 0.93, 1),
    figure("Not as written", "In how many is the newest policy not in force?", Unit.COUNT,
           f"sum({_of_policy('membudget_policy_problem')})", 1),
    figure("Observe only", "In how many are decisions not carried out, by the policy or by hand?", Unit.COUNT,
           f"sum({_of_policy('(1 - membudget_enforcing)')})", 1),
))  # fmt: skip

_MEMORY: Final = Row("Memory", (
    Panel("Use, budget, limit", "What do its pods use together, and what were they given?", Unit.BYTES, (
        Query(f"sum(policy:membudget_limit_bytes:sum{_OF})", "limit"),
        Query(f"sum(policy:membudget_budget_bytes:sum{_OF})", "budget"),
        Query(f"sum(policy:membudget_signal_bytes:sum{_OF})", "use"),
    ), width=12),
    Panel("Use of the budget by pod", "Do all of its pods have the same need?", Unit.RATIO, (
        Query(_USE, "{{pod}}"),
    ), width=12, warn_at=(0.8, 0.93, 1.0)),
    Panel("What would do", "Which budget and limit would do for every pod, by what was seen?", Unit.BYTES, (
        Query(f"max by (policy) ({_of_policy('membudget_budget_bytes')})", "{{policy}}: has"),
        Query(_recommended("total"), "{{policy}}: would do"),
        Query(_recommended("limit"), "{{policy}}: limit for it"),
    ), Show.STEPS, width=24),
))  # fmt: skip

_LADDER: Final = Row("What was done", (
    Panel("Level of the ladder by pod", "Which rung does each pod stand on: 1 soft, 2 hard, 3 emergency?", Unit.COUNT, (
        Query(_of_policy("membudget_ladder_level"), "{{pod}}"),
    ), Show.STEPS),
    Panel("Actions by kind", "What is done to hold the budget?", Unit.PER_SECOND, (
        Query(f"sum by (kind) ({_of_policy('rate(membudget_actions_total[$__rate_interval])')}) > 0", "{{kind}}"),
    )),
    Panel("Ineffective within 15 minutes", "Which pods free less than half of what is asked?", Unit.COUNT, (
        Query(_of_policy("instance:membudget_actions_ineffective:increase15m"), "{{pod}}"),
    )),
))  # fmt: skip

_ORDERS: Final = Row("How it arrives", (
    Panel("The engine holds the plan", "1: the engine took over what the sidecar holds.", Unit.COUNT, (
        Query(_of_policy("membudget_plan_held"), "{{pod}}"),
    ), Show.STEPS),
    Panel("Since the last order", "When did each pod last take an order?", Unit.SECONDS, (
        Query(_of_policy("membudget_order_age_seconds"), "{{pod}}"),
    )),
    Panel("Orders by answer", "What did the pods answer?", Unit.PER_SECOND, (
        Query(f"sum by (answer) ({_of_policy('rate(membudget_orders_total[$__rate_interval])')})", "{{answer}}"),
    )),
))  # fmt: skip

POLICY: Final = Dashboard(
    "policy",
    "membudget / Policy",
    "What does one policy give its pods, what do they make of it, and is it in force as it was written?",
    (Variable("policy", "membudget_policy_info"),),
    (_NOW, _MEMORY, _LADDER, _ORDERS),
)
