"""Which plan belongs to which pod (R-P11, R-P13), and who may be dialled at all."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cluster_objects import make_pod, make_policy
from membudget_contract.selector import selects
from membudget_controller.objects import Compiled, Invalid, ObservedPolicy
from membudget_controller.targets import AddressProblem, address_of, assign, profile_plan


def winner_of(policies: list[ObservedPolicy]) -> str | None:
    """By name, for a pod that all select."""
    target = assign(policies, [make_pod()]).targets["uid-of-retriever-0"]
    return target.desired.policy.name if target.desired.policy else None


def test_a_pod_gets_the_plan_of_the_policy_that_selects_it() -> None:
    """R-P01, R-P08: with name, uid and generation, for the acknowledgement."""
    policy = make_policy(generation=7, total="90Mi")
    assignment = assign([policy], [make_pod()])
    target = assignment.targets["uid-of-retriever-0"]
    assert ("90Mi", policy.identity, "10.244.0.1") == (target.desired.plan.total, target.desired.policy, target.address)
    assert (["uid-of-retriever-0"], {}) == (assignment.following[policy.uid].won, assignment.following[policy.uid].lost)


@pytest.mark.parametrize(
    "policy",
    [
        make_policy(namespace="elsewhere"),
        make_policy(selector={"matchLabels": {"app": "other"}}),
        make_policy(selector={}),
        make_policy(total="150 megabytes"),
        make_policy(precedence="high"),
    ],
    ids=["other namespace", "other labels", "empty selector", "invalid total", "invalid precedence"],
)
def test_a_pod_that_no_valid_policy_selects_gets_its_profile(policy: ObservedPolicy) -> None:
    """R-P13: policy null, the built-in plan."""
    assert profile_plan() == assign([policy], [make_pod()]).targets["uid-of-retriever-0"].desired


def test_an_invalid_policy_names_its_field() -> None:
    """R-P10: for the condition."""
    assert isinstance(problem := make_policy(total="150 megabytes").meaning, Invalid)
    assert "spec.budget.total" in problem.problem


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (make_policy("z", precedence=1, created="2026-11-20T12:00:00Z"), make_policy("a")),
        (make_policy("z", created="2026-11-20T09:59:59Z"), make_policy("a")),
        (make_policy("a"), make_policy("b")),
        (make_policy("a", precedence=-1), make_policy("b", precedence=5, selector={"matchLabels": {"app": "x"}})),
    ],
    ids=["precedence", "age", "name", "only one selects"],
)
def test_the_winner_has_higher_precedence_else_is_older_else_first_by_name(
    first: ObservedPolicy, second: ObservedPolicy
) -> None:
    """R-P11: whichever is seen first."""
    assert (first.name, first.name) == (winner_of([first, second]), winner_of([second, first]))


def test_the_loser_knows_who_wins_which_pod() -> None:
    """R-P11, fault 100: for its condition."""
    loser, winner = make_policy("loser"), make_policy("winner", precedence=3)
    following = assign([loser, winner], [make_pod()]).following
    assert ([], {"uid-of-retriever-0": "winner"}) == (following[loser.uid].won, following[loser.uid].lost)


RIVALS = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(0, 2), st.sampled_from("abcdefgh")),
    min_size=1,
    max_size=6,
    unique_by=lambda rival: rival[2],
)


@given(rivals=RIVALS, shuffle=st.randoms(use_true_random=False))
def test_there_is_exactly_one_winner_whatever_the_order(
    rivals: list[tuple[int, int, str]], shuffle: random.Random
) -> None:
    """R-P11: total and deterministic; all others lose to it; without the loser nothing changes."""
    policies = [
        make_policy(name, precedence=precedence, created=f"2026-11-20T10:00:0{age}Z")
        for precedence, age, name in rivals
    ]
    expected = min(rivals, key=lambda rival: (-rival[0], rival[1], rival[2]))[2]
    shuffled = list(policies)
    shuffle.shuffle(shuffled)
    following = assign(shuffled, [make_pod()]).following
    won = [policy.name for policy in policies if following[policy.uid].won]
    lost_to = {policy.name: set(following[policy.uid].lost.values()) for policy in policies if policy.name != expected}
    assert ([expected], {expected}) == (won, set(itertools.chain(*lost_to.values())) or {expected})
    assert expected == winner_of([policy for policy in policies if policy.name in {expected, rivals[0][2]}])


@pytest.mark.parametrize("changed", [{"deleting": True}, {"phase": "Succeeded"}, {"phase": "Failed"}])
def test_a_pod_that_ends_is_no_target(changed: dict[str, Any]) -> None:
    """R-P08: nobody is pushed to on its way out, and no policy waits for it."""
    assignment = assign([make_policy()], [make_pod(**changed)])
    assert ({}, []) == (assignment.targets, assignment.following["uid-of-retrieval"].won)


@pytest.mark.parametrize(
    ("ip", "changed", "expected"),
    [
        ("10.244.0.1", {}, "10.244.0.1"),
        ("fd00:10:244::7", {}, "fd00:10:244::7"),
        ("10.244.0.1", {"ips": ("fd00::1", "10.244.0.1")}, "10.244.0.1"),
        ("", {}, AddressProblem.NO_ADDRESS),
        ("10.244.0.1", {"ips": ("10.244.0.2",)}, AddressProblem.NOT_ITS_OWN),
        ("10.244.0.1", {"ips": ()}, AddressProblem.NOT_ITS_OWN),
        ("10.244.0.1", {"host_network": True}, AddressProblem.HOST_NETWORK),
        ("127.0.0.1", {}, AddressProblem.NOT_ROUTABLE),
        ("::1", {}, AddressProblem.NOT_ROUTABLE),
        ("::ffff:127.0.0.1", {}, AddressProblem.NOT_ROUTABLE),
        ("::ffff:169.254.169.254", {}, AddressProblem.NOT_ROUTABLE),
        ("169.254.169.254", {}, AddressProblem.NOT_ROUTABLE),
        ("fe80::1%eth0", {}, AddressProblem.NOT_ROUTABLE),
        ("224.0.0.1", {}, AddressProblem.NOT_ROUTABLE),
        ("ff02::1", {}, AddressProblem.NOT_ROUTABLE),
        ("0.0.0.0", {}, AddressProblem.NOT_ROUTABLE),
        ("255.255.255.255", {}, AddressProblem.NOT_ROUTABLE),
        ("::", {}, AddressProblem.NOT_ROUTABLE),
        ("kubernetes.default.svc", {}, AddressProblem.NOT_ROUTABLE),
    ],
)
def test_only_a_pods_own_routable_address_is_dialled(
    ip: str, changed: dict[str, Any], expected: str | AddressProblem
) -> None:
    """Fault 92: whoever may patch a pod's status must not be able to aim the controller."""
    assert expected == address_of(make_pod(ip=ip, **changed))


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)


@st.composite
def selectors(draw: st.DrawFn) -> dict[str, Any]:
    """By labels, by the presence of one, or by both."""
    keys = draw(st.sets(st.sampled_from("abc"), max_size=1))
    expressions = [{"key": key, "operator": "Exists"} for key in keys]
    return {"matchLabels": draw(LABELS), "matchExpressions": expressions}


@given(written=st.lists(selectors(), max_size=6), labels=LABELS)
def test_policies_are_found_by_their_labels_as_if_all_were_tried(
    written: list[dict[str, Any]], labels: dict[str, str]
) -> None:
    """R-P11: the same winner and the same losers."""
    policies = [make_policy(f"p{number}", selector=selector) for number, selector in enumerate(written)]
    pod = make_pod(labels=labels)
    selecting = [
        policy
        for policy in policies
        if isinstance(policy.meaning, Compiled) and selects(policy.meaning.selector, pod.labels)
    ]
    assignment = assign(policies, [pod])
    won = [policy.name for policy in policies if assignment.following[policy.uid].won]
    lost = [policy.name for policy in policies if assignment.following[policy.uid].lost]
    assert ([policy.name for policy in selecting[:1]], [policy.name for policy in selecting[1:]]) == (won, lost)
