"""The rule by which an order is accepted, and what no sequence of orders can do (R-P08, guarantee 3)."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.compile import compile_policy
from membudget_contract.orders import (
    HeldOrder,
    Order,
    OrderNumber,
    PodIdentity,
    PolicyIdentity,
    Verdict,
    judge_order,
)
from membudget_contract.plan import plan_hash

POD = PodIdentity(namespace="search", name="retriever-0", uid="5b1f")
POLICY = PolicyIdentity(name="retrieval", uid="a0c4", generation=4)
PLAN = compile_policy(None)


def order(epoch: int = 5, sequence: int = 10, **changed: Any) -> Order:
    """An order as this pod holds it, but for what is changed."""
    made = Order(epoch=epoch, sequence=sequence, pod=POD, policy=POLICY, plan=PLAN, plan_hash=plan_hash(PLAN))
    return msgspec.structs.replace(made, **changed)


def held(accepted: Order) -> HeldOrder:
    """What a sidecar keeps of it."""
    number = OrderNumber(epoch=accepted.epoch, sequence=accepted.sequence)
    return HeldOrder(number=number, policy=accepted.policy, plan=accepted.plan, plan_hash=accepted.plan_hash)


HELD = held(order())

TABLE = [
    ("the next sequence", order(sequence=11), Verdict.ACCEPTED),
    ("a sequence far ahead", order(sequence=10**9), Verdict.ACCEPTED),
    ("the next epoch from its beginning", order(6, 1), Verdict.ACCEPTED),
    ("the same again", order(), Verdict.UNCHANGED),
    ("one before", order(sequence=9), Verdict.OLDER),
    ("an older epoch", order(4, 99), Verdict.NEWER_EPOCH),
    ("another plan under the number", order(plan_hash="f" * 64), Verdict.CONTRADICTION),
    ("no policy under the number", order(policy=None), Verdict.CONTRADICTION),
    (
        "a later generation under the number",
        order(policy=msgspec.structs.replace(POLICY, generation=5)),
        Verdict.CONTRADICTION,
    ),
    ("the same generation", order(sequence=11, policy=POLICY), Verdict.ACCEPTED),
    (
        "a generation that fell",
        order(sequence=11, policy=msgspec.structs.replace(POLICY, generation=3)),
        Verdict.GENERATION_FELL,
    ),
    (
        "a generation that fell, confirmed by an epoch",
        order(6, 1, policy=msgspec.structs.replace(POLICY, generation=3)),
        Verdict.ACCEPTED,
    ),
    ("made again", order(sequence=11, policy=msgspec.structs.replace(POLICY, uid="f", generation=1)), Verdict.ACCEPTED),
    ("back to the profile", order(sequence=11, policy=None), Verdict.ACCEPTED),
    ("another pod's uid", order(sequence=11, pod=msgspec.structs.replace(POD, uid="f")), Verdict.FOREIGN),
    ("another pod's name", order(sequence=11, pod=msgspec.structs.replace(POD, name="f")), Verdict.FOREIGN),
    ("another namespace", order(sequence=11, pod=msgspec.structs.replace(POD, namespace="f")), Verdict.FOREIGN),
    ("a later minor version", order(sequence=11, contract="1.99"), Verdict.ACCEPTED),
    ("a later major version", order(sequence=11, contract="2.0"), Verdict.UNSUPPORTED),
    ("no version", order(sequence=11, contract=""), Verdict.UNSUPPORTED),
    ("a requirement nobody knows", order(sequence=11, requires=("telepathy",)), Verdict.UNSUPPORTED),
]


@pytest.mark.parametrize(("asked", "expected"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_an_order_is_judged_against_what_is_held(asked: Order, expected: Verdict) -> None:
    """R-P08, fault 48: by pod, number, plan and, within one epoch, the generation of the same policy."""
    assert expected is judge_order(HELD, asked, POD)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (order(0, 0), Verdict.ACCEPTED),
        (order(pod=msgspec.structs.replace(POD, uid="f")), Verdict.FOREIGN),
        (order(contract="2.0"), Verdict.UNSUPPORTED),
    ],
)
def test_with_nothing_held_any_number_counts_and_no_other_pod(asked: Order, expected: Verdict) -> None:
    """R-P08: a first start, or a file that was torn."""
    assert expected is judge_order(None, asked, POD)


def test_numbers_are_ordered_by_epoch_and_then_by_sequence() -> None:
    """R-P08: also where the sequence begins anew."""
    numbers = [OrderNumber(epoch=epoch, sequence=sequence) for epoch, sequence in ((3, 0), (2, 1), (1, 9), (2, 2))]
    assert [(1, 9), (2, 1), (2, 2), (3, 0)] == [(made.epoch, made.sequence) for made in sorted(numbers)]


POLICIES = st.none() | st.builds(
    PolicyIdentity, name=st.just("retrieval"), uid=st.sampled_from("ab"), generation=st.integers(1, 5)
)
PODS = st.sampled_from((POD, POD, POD, msgspec.structs.replace(POD, uid="f")))
ORDERS = st.builds(
    order,
    st.integers(0, 3),
    st.integers(0, 6),
    policy=POLICIES,
    pod=PODS,
    plan_hash=st.sampled_from(("a" * 64, "b" * 64)),
)


@given(st.lists(ORDERS, max_size=40))
def test_accepted_numbers_rise_strictly_whatever_is_sent(sent: list[Order]) -> None:
    """Guarantee 3: no order is applied twice, out of order, or by the wrong pod; no generation falls in an epoch."""
    accepted: list[Order] = []
    for asked in sent:
        verdict = judge_order(held(accepted[-1]) if accepted else None, asked, POD)
        if verdict is Verdict.ACCEPTED:
            accepted.append(asked)
        elif verdict is Verdict.UNCHANGED:
            assert asked == accepted[-1]
    numbers = [(taken.epoch, taken.sequence) for taken in accepted]
    assert sorted(set(numbers)) == numbers
    assert {POD} >= {taken.pod for taken in accepted}
    for before, after in itertools.pairwise(accepted):
        if before.policy and after.policy and (before.epoch, before.policy.uid) == (after.epoch, after.policy.uid):
            assert before.policy.generation <= after.policy.generation


RISING = [order(1, step, policy=msgspec.structs.replace(POLICY, generation=step)) for step in range(1, 8)]


@given(st.permutations([*RISING, *RISING]))
def test_shuffled_and_repeated_the_newest_order_is_held_in_the_end(sent: list[Order]) -> None:
    """Fault 48: the edits of one policy, each sent twice in any order, end at the last."""
    last: HeldOrder | None = None
    for asked in sent:
        if judge_order(last, asked, POD) is Verdict.ACCEPTED:
            last = held(asked)
    assert held(RISING[-1]) == last
