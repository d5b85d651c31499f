"""What a policy's status says, and when it moves (R-P10, R-P11)."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from controller.cluster_objects import make_pod, make_policy
from membudget_contract.orders import PodReport
from membudget_contract.policy_status import REASONS, PolicyStatus
from membudget_controller.conditions import policy_status
from membudget_controller.pod_facts import PodFacts, Standing, facts_of
from membudget_controller.progress import Incarnation, Progress
from membudget_controller.pushes import Failure, KeysPending, Refused, Unreachable
from membudget_controller.targets import assign
from membudget_controller.transport import Unreached

NOW = dt.datetime(2026, 11, 21, 12, 0, 0, 500, tzinfo=dt.UTC)
WELL = PodFacts("a", Standing.PROGRAMMED, over_budget=False)


def answers(status: PolicyStatus) -> list[tuple[str, str]]:
    """Status and reason of each condition."""
    return [(condition.status.value, condition.reason.value) for condition in status.conditions]


def status_of(followers: list[PodFacts], lost_to: tuple[str, ...] = (), **policy: Any) -> PolicyStatus:
    """Of a policy with no status yet."""
    return policy_status(make_policy(**policy), followers, lost_to, NOW)


@pytest.mark.parametrize(
    ("followers", "lost_to", "expected"),
    [
        ([WELL], (), [("True", "Accepted"), ("True", "Programmed"), ("True", "UnderBudget")]),
        ([], (), [("True", "Accepted"), ("Unknown", "NoPods"), ("Unknown", "NoPods")]),
        ([], ("winner",), [("False", "Conflicted"), ("Unknown", "NoPods"), ("Unknown", "NoPods")]),
        ([WELL], ("winner",), [("False", "Conflicted"), ("True", "Programmed"), ("True", "UnderBudget")]),
        (
            [replace(WELL, overridden=True)],
            (),
            [("True", "Overridden"), ("True", "Programmed"), ("True", "UnderBudget")],
        ),
        (
            [WELL, PodFacts("b", Standing.PUSHING)],
            (),
            [("True", "Accepted"), ("False", "Pushing"), ("Unknown", "ReportMissing")],
        ),
        (
            [replace(WELL, over_budget=True), PodFacts("b", Standing.UNREACHABLE, "no")],
            (),
            [("True", "Accepted"), ("False", "Unreachable"), ("False", "OverBudget")],
        ),
        (
            [PodFacts("b", Standing.UNREACHABLE), PodFacts("c", Standing.REFUSED, "NoLimit: x", over_budget=False)],
            (),
            [("True", "Accepted"), ("False", "Refused"), ("Unknown", "ReportMissing")],
        ),
        (
            [PodFacts("b", Standing.KEYS_PENDING)],
            (),
            [("True", "Accepted"), ("False", "KeysPending"), ("Unknown", "ReportMissing")],
        ),
    ],
)
def test_the_worst_pod_gives_the_reason(
    followers: list[PodFacts], lost_to: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    """R-P10: three conditions, each with one reason of its own table."""
    status = status_of(followers, lost_to)
    assert expected == answers(status)
    assert all(condition.reason in REASONS[condition.type] for condition in status.conditions)


def test_counts_and_generation_are_those_of_now() -> None:
    """R-P10: matched, programmed, refused."""
    pods = [WELL, PodFacts("b", Standing.REFUSED), PodFacts("c", Standing.PUSHING)]
    status = status_of(pods, generation=4)
    assert (4, 3, 1, 1) == (
        status.observed_generation,
        status.matched_pods,
        status.programmed_pods,
        status.refused_pods,
    )
    assert {4} == {condition.observed_generation for condition in status.conditions}


def test_an_invalid_policy_names_its_field() -> None:
    """R-P10: what the API server let through is told here."""
    status = status_of([], total="150 megabytes")
    assert ("False", "Invalid") == answers(status)[0]
    assert status.conditions[0].message.startswith("spec.budget.total: ")


def test_the_loser_names_the_winner() -> None:
    """R-P11: and the rule."""
    message = status_of([], ("winner", "winner", "also"))
    assert message.conditions[0].message.startswith("also, winner win every pod that it selects: higher precedence")


def test_a_message_names_three_pods_and_counts_the_rest() -> None:
    """R-P10: in the order of the alphabet, whatever the order of looking."""
    pods = [PodFacts(name, Standing.REFUSED, "NoLimit: no limit here") for name in "fbdeac"]
    messages = {status_of(order).conditions[1].message for order in (pods, pods[::-1])}
    assert {"a, b, c and 3 more: NoLimit: no limit here"} == messages


def test_the_same_facts_make_the_same_status_at_any_time() -> None:
    """Guarantee 6: nothing is written where nothing changed."""
    first = status_of([WELL])
    policy = replace(make_policy(), status=first)
    assert first == policy_status(policy, [WELL], (), NOW + dt.timedelta(days=1))


@pytest.mark.parametrize(
    ("name", "why", "expected"),
    [
        ("r-1", "BudgetBelowFloor: 99 lies below 5002 bytes", "r-1: BudgetBelowFloor: 99 lies below 5001 bytes"),
        ("r-2", "BudgetBelowFloor: 99 lies below 5001 bytes", "r-2: BudgetBelowFloor: 99 lies below 5001 bytes"),
        ("r-1", "NoLimit: 99", "r-1: NoLimit: 99"),
    ],
)
def test_a_figure_that_moves_is_no_news_but_a_pod_or_a_reason_is(name: str, why: str, expected: str) -> None:
    """Guarantee 6: sidecars word refusals with the bytes of the moment."""
    first = status_of([PodFacts("r-1", Standing.REFUSED, "BudgetBelowFloor: 99 lies below 5001 bytes")])
    policy = replace(make_policy(), status=first)
    second = policy_status(policy, [PodFacts(name, Standing.REFUSED, why)], (), NOW)
    assert expected == second.conditions[1].message


def test_a_later_generation_gets_its_own_message() -> None:
    """R-P10: figures that the author wrote are news."""
    first = status_of([], total="150 megabytes")
    policy = replace(make_policy(total="160 megabytes", generation=2), status=first)
    assert "160 megabytes" in policy_status(policy, [], (), NOW).conditions[0].message


def test_a_plan_that_is_held_and_not_in_force_is_not_programmed() -> None:
    """R-P10: a percent of a limit that is not known yet; the message says what it waits for."""
    holding = replace(FRESH, held=TARGET.desired.content, problem="75% needs a limit")
    facts = facts_of(TARGET, holding, 0, 60)
    assert (Standing.PUSHING, "holds it, but it is not in force there: 75% needs a limit") == (
        facts.standing,
        facts.why,
    )


def test_a_transition_time_moves_only_with_the_answer() -> None:
    """R-P10: another reason for the same answer keeps it; whole seconds, as Kubernetes writes them."""
    first = status_of([PodFacts("b", Standing.PUSHING, over_budget=False)])
    later = NOW + dt.timedelta(minutes=5)
    policy = replace(make_policy(generation=2), status=first)
    second = policy_status(policy, [PodFacts("b", Standing.UNREACHABLE, over_budget=True)], (), later)
    times = [condition.last_transition_time for condition in second.conditions]
    whole = NOW.replace(microsecond=0)
    assert [whole, whole, later.replace(microsecond=0)] == times


TARGET = assign([make_policy()], [make_pod()]).targets["uid-of-retriever-0"]
FRESH = Progress(Incarnation("10.244.0.1", 0))


@pytest.mark.parametrize(
    ("trouble", "standing"),
    [
        (None, Standing.PUSHING),
        (KeysPending(), Standing.KEYS_PENDING),
        (Unreachable(Unreached.TIMED_OUT), Standing.UNREACHABLE),
        (Refused("NoLimit", "no limit", 422), Standing.REFUSED),
    ],
)
def test_a_pod_that_does_not_hold_its_plan_stands_by_its_trouble(trouble: Failure | None, standing: Standing) -> None:
    """R-P10: and one that holds it is programmed, whatever happened to a later report."""
    troubled = replace(FRESH, trouble=trouble)
    holding = replace(troubled, held=TARGET.desired.content)
    assert (standing, Standing.PROGRAMMED) == (
        facts_of(TARGET, troubled, 0, 60).standing,
        facts_of(TARGET, holding, 0, 60).standing,
    )


def test_a_pod_without_an_address_is_waited_for_and_one_with_a_foreign_one_is_unreachable() -> None:
    """Fault 92: the condition says why it is not dialled."""
    pods = [make_pod("new", ip="", ips=()), make_pod("stolen", ip="169.254.169.254")]
    targets = assign([make_policy()], pods).targets
    facts = [facts_of(target, FRESH, 0, 60) for target in targets.values()]
    assert [Standing.PUSHING, Standing.UNREACHABLE] == [fact.standing for fact in facts]
    assert ["has no address yet", True] == [facts[0].why, "link-local" in facts[1].why]


@pytest.mark.parametrize(
    ("usage", "age", "expected"),
    [(150, 0.0, False), (151, 0.0, True), (None, 0.0, None), (151, 151.0, None), (0, 150.0, False)],
)
def test_what_is_not_known_is_not_under_budget(usage: int | None, age: float, expected: bool | None) -> None:
    """Guarantee 4: no figure, or one that is too old, is neither over nor under."""
    report = PodReport(
        pod_uid="",
        number=None,
        policy=None,
        plan_hash=None,
        effective_plan_hash="",
        overridden=False,
        level="Normal",
        engine="Connected",
        usage_bytes=usage,
        budget_bytes=150,
    )
    known = replace(FRESH, report=report, reported_at=1000.0)
    assert expected is facts_of(TARGET, known, 1000.0 + age, 60).over_budget
