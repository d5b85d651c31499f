"""From what pods were seen to need to one budget for the policy that all of them follow (R-P14)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from controller.cluster_objects import make_pod, make_policy
from membudget_contract.compile import compile_policy
from membudget_contract.orders import PodReport
from membudget_contract.quantities import MIB
from membudget_contract.recommend import MOST_BYTES, MOST_COMPONENTS, OTHERS, PodNeed, total_for
from membudget_contract.recommendations_api import PolicyRecommendation, PolicyRecommendations
from membudget_controller.metrics import RecommendedBudgets
from membudget_controller.progress import Incarnation, Progress
from membudget_controller.pushes import Reported, read_report
from membudget_controller.recommendations import advise, advise_all
from membudget_controller.targets import assign
from membudget_controller.transport import HttpAnswer

PLAN = compile_policy(None)
SOFT = PLAN.thresholds.soft.percent


def need(working: int, cache: int = 0, *, hours: float = 2.0) -> PodNeed:
    """Of one pod, in MiB, as its own sidecar adds it up."""
    components = {"working": working * MIB, "cache": cache * MIB}
    total = total_for(sum(components.values()), SOFT)
    return PodNeed(seconds=hours * 3600, total_bytes=total, components=components, limit_bytes=total + 30 * MIB)


def of(**needs: PodNeed | None) -> PolicyRecommendation:
    """For a policy with these pods."""
    return advise(make_policy(), PLAN, needs)


def test_the_budget_of_one_pod_is_its_own() -> None:
    """R-P14: nothing is added by summing up."""
    only = need(40, 30)
    advised = of(a=only)
    assert (only.total_bytes, only.components, only.limit_bytes) == (
        advised.total_bytes,
        advised.components,
        advised.limit_bytes,
    )


def test_each_component_is_that_of_the_pod_that_needs_most_of_it_and_the_total_holds_them() -> None:
    """R-P14: one policy gives one budget to all; that no single pod needs the total is said."""
    advised = of(a=need(60, 10), b=need(20, 50))
    assert {"working": 60 * MIB, "cache": 50 * MIB} == advised.components
    assert (total_for(110 * MIB, SOFT), True) == (advised.total_bytes, "no single pod" in " ".join(advised.reasons))
    assert advised.total_bytes is not None
    assert advised.total_bytes + 30 * MIB == advised.limit_bytes


def test_a_pod_that_stands_out_is_named() -> None:
    """R-P14: its need is in the figures, and people are told to look at it first."""
    advised = of(a=need(40), b=need(41), c=need(42), leaky=need(200))
    assert ["leaky stands out: look at it before all pods get a budget for it"] == [
        reason for reason in advised.reasons if "stands out" in reason
    ]


@pytest.mark.parametrize(
    ("needs", "why"),
    [
        ({}, "no pod follows it"),
        ({"a": None}, "no pod has told yet"),
        ({"a": PodNeed(seconds=3.0, absent="seen for 3 s")}, "a: seen for 3 s"),
    ],
)
def test_without_figures_it_says_what_is_missing(needs: dict[str, PodNeed | None], why: str) -> None:
    """Guarantee 4: unknown is not 0."""
    advised = of(**needs)
    assert (None, None, {}, True) == (
        advised.total_bytes,
        advised.limit_bytes,
        advised.components,
        why in (advised.absent or ""),
    )


def test_pods_that_were_not_seen_for_long_enough_are_counted_and_left_out() -> None:
    """R-P14: the start of an engine is not its use."""
    advised = of(a=need(40), b=PodNeed(seconds=5.0, absent="seen for 5 s"), c=None)
    assert (3, 1, need(40).total_bytes) == (advised.pods, advised.pods_seen, advised.total_bytes)
    assert advised.reasons[0].startswith("1 of 3 pods")


def summed(components: dict[str, int], over: int) -> PodNeed:
    """As a sidecar adds them up, with a limit so far above."""
    total = total_for(sum(components.values()), SOFT)
    return PodNeed(seconds=3600.0, total_bytes=total, components=components, limit_bytes=total + over)


SIZES = st.integers(0, 1 << 40)
PARTS = st.dictionaries(st.sampled_from(["working", "cache", "index"]), SIZES)
NEEDS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.builds(summed, PARTS, SIZES), min_size=1, max_size=8)


@given(needs=NEEDS)
def test_what_is_recommended_would_do_for_every_pod(needs: dict[str, PodNeed]) -> None:
    """R-P14: no pod needs more of anything."""
    advised = of(**needs)
    assert advised.total_bytes is not None
    assert advised.limit_bytes is not None
    for told in needs.values():
        assert (told.total_bytes or 0) <= advised.total_bytes
        assert (told.limit_bytes or 0) <= advised.limit_bytes
        assert all(size <= advised.components[name] for name, size in told.components.items())


def test_a_policy_hears_only_of_the_pods_that_follow_it() -> None:
    """R-P11, R-P14: a pod that another policy wins is none of its own; one that means nothing recommends nothing."""
    policies = (
        make_policy("broad"),
        make_policy("special", selector={"matchLabels": {"tier": "special"}}, precedence=5),
        make_policy("wrong", total="1Zi"),
    )
    pods = (make_pod("plain"), make_pod("won", labels={"app": "retriever", "tier": "special"}))
    progress = {"uid-of-plain": told(need(40)), "uid-of-won": told(need(90))}
    advised = advise_all(policies, assign(policies, pods), progress)
    assert {"broad": need(40).total_bytes, "special": need(90).total_bytes} == {
        one.policy: one.total_bytes for one in advised.policies
    }


def test_metrics_name_the_policy_and_leave_nothing_behind() -> None:
    """R-P14: two series each, none for a policy without figures."""
    known = [of(a=need(40)), msgspec.structs.replace(of(), policy="silent")]
    registry = CollectorRegistry()
    registry.register(RecommendedBudgets(lambda: PolicyRecommendations(policies=tuple(known))))
    labels = {"namespace": "search", "policy": "retrieval"}
    names = [f"membudget_controller_recommended_{what}_bytes" for what in ("total", "limit")]
    total = need(40).total_bytes
    assert total is not None
    assert [total, total + 30 * MIB] == [registry.get_sample_value(name, labels) for name in names]
    assert [None, None] == [registry.get_sample_value(name, {**labels, "policy": "silent"}) for name in names]
    known.clear()
    assert [None, None] == [registry.get_sample_value(name, labels) for name in names]


@pytest.mark.parametrize(
    "forged",
    [
        PodNeed(seconds=1.0, total_bytes=MOST_BYTES + 1),
        PodNeed(seconds=1.0, total_bytes=-1),
        PodNeed(seconds=1.0, components={f"part-{number}": 1 for number in range(MOST_COMPONENTS + 2)}),
        PodNeed(seconds=1.0, components={"x" * 64: 1}),
        PodNeed(seconds=1.0, absent="x" * 501),
    ],
)
def test_what_no_sidecar_of_ours_would_say_is_not_kept(forged: PodNeed) -> None:
    """R-P14, fault 91: who listens at a pod's address fills no memory and spoils no figure; the report counts else."""
    for said, kept in ((forged, None), (need(40), need(40))):
        answer = HttpAnswer(200, msgspec.json.encode(report(said)))
        result = read_report(answer, "uid")
        assert isinstance(result, Reported)
        assert kept == result.report.need


def test_many_pods_with_names_of_their_own_make_no_long_answer() -> None:
    """R-P14, fault 91: the largest components by name, the others together; none is lost."""
    needs = {
        f"pod-{number}": PodNeed(
            seconds=1.0, total_bytes=MIB, limit_bytes=MIB, components={f"part-{number}": 1 + number}
        )
        for number in range(100)
    }
    advised = of(**needs)
    assert (MOST_COMPONENTS + 1, sum(range(1, 101))) == (len(advised.components), sum(advised.components.values()))
    assert sum(range(1, 101 - MOST_COMPONENTS)) == advised.components[OTHERS]


def told(said: PodNeed) -> Progress:
    """A pod that reported so."""
    return Progress(Incarnation("10.244.0.1", 0), report=report(said))


def report(said: PodNeed) -> PodReport:
    """Of a pod that is well."""
    return PodReport(
        pod_uid="uid",
        number=None,
        policy=None,
        plan_hash=None,
        effective_plan_hash="effective",
        overridden=False,
        level="Normal",
        engine="Connected",
        usage_bytes=100,
        budget_bytes=150,
        need=said,
    )
