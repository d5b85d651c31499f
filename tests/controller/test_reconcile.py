"""What is done now, and what waits (guarantee 6, R-P08)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cluster_objects import make_pod, make_policy
from membudget_contract.orders import Acknowledgement, OrderNumber, PodReport
from membudget_controller import progress
from membudget_controller.orders import NumberedOrder
from membudget_controller.progress import MOST_RETRY_SECONDS, Incarnation, Progress
from membudget_controller.pushes import Acknowledged, Failure, KeysPending, Refused, Reported, Unreachable
from membudget_controller.reconcile import Work, reconcile
from membudget_controller.targets import Content, Target, assign
from membudget_controller.transport import Unreached

UID = "uid-of-retriever-0"
DOWN = Unreachable(Unreached.NO_CONNECTION)
NONE: frozenset[str] = frozenset()
NO_LIMIT = Refused("NoLimit", "75% needs a limit", 422)


def target_of(total: str = "100Mi", generation: int = 1, ip: str = "10.244.0.1") -> Target:
    """The one pod, with a plan of that total."""
    return assign([make_policy(total=total, generation=generation)], [make_pod(ip=ip)]).targets[UID]


def at(target: Target, known: Progress, now: float = 0.0) -> Work:
    """One look."""
    return reconcile({UID: target}, {UID: known}, NONE, now)


def fresh() -> Progress:
    """Nothing is known."""
    return Progress(Incarnation("10.244.0.1", 0))


def order_of(target: Target, sequence: int = 1) -> NumberedOrder:
    """As the writer numbers it."""
    return NumberedOrder(target.pod, OrderNumber(epoch=1, sequence=sequence), target.desired)


def acknowledged(known: Progress, target: Target, now: float = 0.0) -> Progress:
    """The pod holds it."""
    order = order_of(target)
    said = Acknowledgement(
        changed=True,
        pod_uid=UID,
        number=order.number,
        plan_hash=target.desired.plan_hash,
        effective_plan_hash="",
        overridden=False,
    )
    return progress.acknowledged(progress.sent(known, order, now), order, Acknowledged(said), now)


def report_of(content: Content) -> Reported:
    """The pod says that it holds this."""
    return Reported(
        PodReport(
            pod_uid=UID,
            number=None,
            policy=content.policy,
            plan_hash=content.plan_hash,
            effective_plan_hash="",
            overridden=False,
            level="Normal",
            engine="Connected",
            usage_bytes=1,
            budget_bytes=2,
        )
    )


def test_what_is_held_by_nobody_knows_whom_is_asked_for_first() -> None:
    """R-P08: after a restart of the controller nothing is pushed that is held already."""
    target = target_of()
    known = progress.reported(fresh(), report_of(target.desired.content), 0.0, 60.0)
    assert (Work((UID,), (), None), Work((), (), 60.0)) == (at(target, fresh()), at(target, known))


def test_a_pod_that_never_had_an_order_is_told() -> None:
    """R-P08: known to hold nothing is not unknown."""
    known = progress.reported(fresh(), report_of(Content(None, None)), 0.0, 60.0)
    assert Work((), (UID,), None) == at(target_of(), known)


@pytest.mark.parametrize("changed", [{"total": "90Mi"}, {"generation": 2}])
def test_another_plan_or_another_generation_is_pushed(changed: dict[str, Any]) -> None:
    """R-P08: the acknowledged generation is that of the policy, with the same plan too."""
    known = acknowledged(fresh(), target_of())
    assert Work((), (UID,), None) == at(target_of(**changed), known, 1.0)


def test_a_pod_is_told_once_a_second_at_most() -> None:
    """Fault 37: what flaps faster is coalesced."""
    known = acknowledged(fresh(), target_of(), now=10.0)
    other = target_of("90Mi")
    assert (Work((), (), 11.0), Work((), (UID,), None)) == (at(other, known, 10.99), at(other, known, 11.0))


def test_in_flight_and_not_to_be_dialled_is_left_alone() -> None:
    """R-P08: one exchange for each pod; fault 92."""
    target = target_of()
    assert Work((), (), None) == reconcile({UID: target}, {UID: fresh()}, {UID}, 0.0)
    assert Work((), (), None) == at(target_of(ip="127.0.0.1"), fresh())


@pytest.mark.parametrize("failure", [DOWN, KeysPending()])
def test_pauses_after_failures_double_up_to_their_most(failure: Failure) -> None:
    """Fault 89: pods that swallow packets do not hold up the others; a healed one waits no longer than 15 s."""
    target, known = target_of("90Mi"), acknowledged(fresh(), target_of())
    pauses: list[float] = []
    for _ in range(8):
        known = progress.push_failed(known, failure, 100.0, 0.0)
        pauses.append(known.retry_at - 100.0)
    assert [0.5, 1, 2, 4, 8, MOST_RETRY_SECONDS, MOST_RETRY_SECONDS, MOST_RETRY_SECONDS] == pauses
    assert () == at(target, known, 100.0 + MOST_RETRY_SECONDS - 0.1).push
    assert (UID,) == at(target, known, 100.0 + MOST_RETRY_SECONDS).push


def test_what_was_refused_is_not_sent_again_soon_but_something_else_is() -> None:
    """Guarantee 6: a refusal is an answer; an edit of the policy is tried at once."""
    refused, other = target_of("75%"), target_of("90Mi")
    known = progress.sent(acknowledged(fresh(), target_of()), order_of(refused, 2), 10.0)
    known = progress.push_failed(known, NO_LIMIT, 10.0, 0.0)
    known = progress.reported(known, report_of(target_of().desired.content), 12.0, 600.0)
    assert (NO_LIMIT, ()) == (known.trouble, at(refused, known, 300.0).push)
    assert ((UID,), (UID,)) == (at(refused, known, 310.0).push, at(other, known, 12.0).push)


def test_a_pod_that_takes_by_itself_what_it_refused_is_programmed() -> None:
    """R-P08: a limit that was raised lets the waiting plan in; the report shows it."""
    refused = target_of("75%")
    known = progress.sent(acknowledged(fresh(), target_of()), order_of(refused, 2), 10.0)
    known = progress.push_failed(known, NO_LIMIT, 10.0, 0.0)
    known = progress.reported(known, report_of(refused.desired.content), 12.0, 60.0)
    assert (None, Work((), (), 72.0)) == (known.trouble, at(refused, known, 12.0))


def test_a_problem_with_what_was_refused_is_none_of_what_is_wanted_again() -> None:
    """R-P10: the policy is put back; the pod still speaks of the order that it refused, and holds the right one."""
    first = target_of()
    known = progress.sent(acknowledged(fresh(), first), order_of(target_of("75%"), 2), 10.0)
    said = Reported(msgspec.structs.replace(report_of(first.desired.content).report, problem="NoLimit"))
    again = progress.reported(known, said, 11.0, 60.0)
    fresh_start = progress.reported(fresh(), said, 11.0, 60.0)
    assert (None, "NoLimit") == (again.problem, fresh_start.problem)


@pytest.mark.parametrize("reason", ["Older", "Contradiction"])
def test_a_spent_number_is_given_up_and_the_pod_asked(reason: str) -> None:
    """Guarantee 3: whatever it holds, the next order has a number of its own."""
    target = target_of()
    known = progress.sent(acknowledged(fresh(), target_of("90Mi")), order_of(target, 2), 10.0)
    known = progress.push_failed(known, Refused(reason, "", 409), 10.0, 0.0)
    assert (None, Work((UID,), (), None)) == (known.order, at(target, known, 10.5))


def test_a_missed_report_does_not_undo_an_acknowledgement() -> None:
    """R-P10: Programmed is about what was acknowledged."""
    target = target_of()
    known = progress.ask_failed(acknowledged(fresh(), target), DOWN, 5.0, 0.0)
    assert (target.desired.content, Work((), (), 5.5)) == (known.held, at(target, known, 5.0))


@given(
    totals=st.lists(st.sampled_from(["100Mi", "90Mi", "75%"]), min_size=1, max_size=4),
    now=st.floats(0, 1e6),
    reports_due=st.floats(0.001, 100),
)
def test_where_every_pod_holds_what_is_desired_no_order_is_sent(
    totals: list[str], now: float, reports_due: float
) -> None:
    """Guarantee 6: whatever the time, only reports, and those when they are due."""
    targets = {str(index): target_of(total) for index, total in enumerate(totals)}
    known = {
        uid: replace(acknowledged(fresh(), target, now), ask_at=now + reports_due) for uid, target in targets.items()
    }
    later = now + reports_due
    assert ((), (), ()) == (
        reconcile(targets, known, NONE, now).ask,
        reconcile(targets, known, NONE, now).push,
        reconcile(targets, known, NONE, later).push,
    )
    assert set(targets) == set(reconcile(targets, known, NONE, later).ask)
