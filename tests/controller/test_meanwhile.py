"""What a pod is told until it has its higher limit: the newest policy within the budget that it has (goal 1, R-P08)."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from controller.cluster_objects import make_pod, make_policy
from membudget_contract.orders import OrderNumber, PodReport
from membudget_contract.quantities import MIB, parse_quantity
from membudget_controller.meanwhile import until_then
from membudget_controller.orders import NumberedOrder
from membudget_controller.progress import Incarnation, Progress
from membudget_controller.targets import Content, Target, assign

POD = make_pod()
HELD = Content(None, "older")
LIMIT = 100 * MIB


def target(total: str = "90Mi", **components: str) -> Target:
    """Of a policy with this total and components of their own."""
    policy = make_policy(budget={"total": total, "components": components})
    return assign([policy], [POD]).targets[POD.uid]


def known(budget: int, reported_at: float | None = 20.0) -> Progress:
    """A pod that holds something since 10 and said then, or not, what its budget is."""
    report = PodReport(
        pod_uid=POD.uid,
        number=None,
        policy=None,
        plan_hash="older",
        effective_plan_hash="",
        overridden=False,
        level="Normal",
        engine="Connected",
        usage_bytes=None,
        budget_bytes=budget,
    )
    return Progress(Incarnation("", 0), held=HELD, held_since=10.0, report=report, reported_at=reported_at)


def total(found: Target | None) -> int | None:
    """In bytes."""
    return parse_quantity(found.desired.plan.total) if found else None


@given(budget=st.integers(1, 2**40), carried=st.integers(1, 2**40), wanted=st.integers(1, 2**40))
def test_never_more_than_it_has_than_its_limit_or_than_is_wanted(budget: int, carried: int, wanted: int) -> None:
    """Invariant: and everything else is as the policy says."""
    end = target(f"{wanted}")
    found = until_then(end, known(budget), carried)
    assert min(budget, carried, wanted) == total(found)
    assert found is not None
    assert end.desired.plan == msgspec.structs.replace(found.desired.plan, total=end.desired.plan.total)
    assert (end.desired.content == found.desired.content) == (wanted <= min(budget, carried))


def test_where_its_budget_is_not_known_it_is_told_nothing() -> None:
    """Not asked yet, no report since it holds what it holds, or a container that does not run."""
    silent, old = known(60 * MIB, None), known(60 * MIB, 9.0)
    assert [None] * 4 == [
        until_then(target(), replace(known(60 * MIB), held=None), LIMIT),
        until_then(target(), silent, LIMIT),
        until_then(target(), old, LIMIT),
        until_then(target(), known(60 * MIB), None),
    ]


def test_what_was_acknowledged_counts_before_any_report() -> None:
    """The report is of the plan before; a percent says nothing without the report."""
    for text, expected in (("70Mi", 70 * MIB), ("75%", None)):
        order = NumberedOrder(target().pod, OrderNumber(epoch=1, sequence=1), target(text).desired)
        told = replace(known(60 * MIB, 9.0), order=order, held=order.desired.content)
        assert expected == total(until_then(target(), told, LIMIT))


def test_components_that_need_the_larger_total_wait_for_it() -> None:
    """Half a plan is none: the sidecar would refuse it."""
    large = target(semanticCache="70Mi")
    assert (None, 80 * MIB) == (
        total(until_then(large, known(60 * MIB), LIMIT)),
        total(until_then(large, known(80 * MIB), LIMIT)),
    )
