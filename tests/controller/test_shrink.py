"""When a pod's limit may be changed: bytes first, verified (goal 1, R-P03)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.cluster_objects import make_pod, make_policy
from membudget_contract.orders import PodReport
from membudget_contract.policy_status import Reason
from membudget_contract.quantities import MIB
from membudget_controller.objects import Compiled, ObservedPod, PodObject, pod_from
from membudget_controller.pod_memory import ContainerMemory, ResizeRule
from membudget_controller.progress import SETTLE_SECONDS, Incarnation, Progress
from membudget_controller.pushes import Unreachable
from membudget_controller.shrink import (
    FRESH_SECONDS,
    KEPT_FREE_PERCENT,
    LOOK_AGAIN_SECONDS,
    Standing,
    ask_at,
    resize_patch,
    standing,
)
from membudget_controller.targets import Content, Target, assign
from membudget_controller.transport import Unreached

NOW = 1000.0
HELD_SINCE = 900.0
RULE = ResizeRule(120 * MIB, "engine")
BUDGET = 90 * MIB
LARGE = ContainerMemory("engine", request=100 * MIB, limit=200 * MIB, actual=200 * MIB)
POLICY = make_policy(total="75%", resize={"mode": "ShrinkFirst", "limit": "120Mi"})
POD = make_pod(memory=(LARGE,))
TARGET: Target = assign([POLICY], [POD]).targets[POD.uid]


def report(**changed: Any) -> PodReport:
    """Of a pod that holds the plan and uses 80 MiB, measured a second ago."""
    said: dict[str, Any] = {
        "pod_uid": POD.uid,
        "number": None,
        "policy": TARGET.desired.policy,
        "plan_hash": TARGET.desired.plan_hash,
        "effective_plan_hash": "",
        "overridden": False,
        "level": "Normal",
        "engine": "Connected",
        "usage_bytes": 80 * MIB,
        "usage_age_seconds": 1.0,
        "budget_bytes": BUDGET,
    }
    return PodReport(**{**said, **changed})


def known(said: PodReport | None = None, **changed: Any) -> Progress:
    """It holds the plan since a while, and reported so just now."""
    so_far: dict[str, Any] = {"held": TARGET.desired.content, "held_since": HELD_SINCE, "reported_at": NOW}
    return Progress(Incarnation("10.244.0.1", 0), report=said or report(), **{**so_far, **changed})


def of(pod: ObservedPod = POD, progress: Progress | None = None, now: float = NOW) -> Standing:
    """Where the pod stands."""
    return standing(pod, RULE, TARGET, progress or known(), now)


def with_memory(**changed: Any) -> ObservedPod:
    """The pod with another container."""
    return replace(POD, memory=(replace(LARGE, **changed),))


def test_a_policy_without_shrink_first_leaves_limits_alone() -> None:
    """Opt-in: Off, and a limit without the mode."""
    rules = [make_policy(resize=resize).meaning for resize in ({}, {"mode": "Off", "limit": "200Mi"})]
    assert [None, None] == [meaning.resize for meaning in rules if isinstance(meaning, Compiled)]


def test_a_percent_is_one_of_the_limit_that_is_wanted() -> None:
    """R-P03: the smaller budget is pushed while the larger limit is still there."""
    meaning = POLICY.meaning
    assert isinstance(meaning, Compiled)
    assert (RULE, str(BUDGET)) == (meaning.resize, meaning.plan.total)


def test_a_limit_is_lowered_when_a_measured_use_fits() -> None:
    """The last step of three: plan, bytes, limit."""
    assert Standing(Reason.RESIZING, "gave back enough", due=True) == of()


NOT_YET: dict[str, tuple[Progress, str]] = {
    "another plan": (known(held=Content(None, "other")), "does not hold the smaller budget yet"),
    "unknown": (known(held=None), "does not hold the smaller budget yet"),
    "not in force": (known(problem="the engine is away"), "not in force there: the engine is away"),
    "no report": (known(reported_at=None), "has not reported since it got the smaller budget"),
    "an older report": (
        known(reported_at=HELD_SINCE + SETTLE_SECONDS - 0.1),
        "has not reported since it got the smaller budget",
    ),
    "no engine": (known(report(engine="Lost")), "its engine is Lost"),
    "unknown use": (known(report(usage_bytes=None)), "does not know its use of memory"),
    "a use of unknown age": (known(report(usage_age_seconds=None)), "that was measured lately"),
    "an old use": (known(report(usage_age_seconds=FRESH_SECONDS + 0.1)), "that was measured lately"),
    "an old report": (known(reported_at=NOW - FRESH_SECONDS), "that was measured lately"),
    "a budget of its own": (
        known(report(budget_bytes=150 * MIB, usage_bytes=1)),
        "holds a budget of its own of 150.0 MiB, which does not fit",
    ),
    "too much": (known(report(usage_bytes=BUDGET + MIB)), "uses 91.0 MiB of the 90.0 MiB that fit into 120Mi"),
    "just under the limit": (
        known(report(usage_bytes=118 * MIB, budget_bytes=119 * MIB)),
        "uses 118.0 MiB of the 114.0 MiB that fit into 120Mi",
    ),
}


@pytest.mark.parametrize(("progress", "why"), NOT_YET.values(), ids=NOT_YET)
def test_a_limit_is_not_lowered_before(progress: Progress, why: str) -> None:
    """Guarantee 4: unknown is never zero, a plan is no measurement, and the figure is told."""
    found = of(progress=progress)
    assert (Reason.GIVING_BACK, False) == (found.reason, found.due)
    assert why in found.why


@given(
    usage=st.none() | st.integers(0, 400 * MIB),
    age=st.none() | st.floats(0, 1.5 * FRESH_SECONDS),
    budget=st.integers(1, 200 * MIB),
    reported=st.none() | st.floats(NOW - 2 * FRESH_SECONDS, NOW) | st.floats(HELD_SINCE - 60, NOW),
    holds=st.booleans(),
    problem=st.none() | st.just("away"),
    engine=st.sampled_from(["Connected", "Connected", "Lost"]),
)
@example(usage=BUDGET + 1, age=0.0, budget=BUDGET, reported=NOW, holds=True, problem=None, engine="Connected")
def test_whatever_is_reported_nothing_is_lowered_under_a_use_that_was_not_measured_to_fit(
    usage: int | None,
    age: float | None,
    budget: int,
    reported: float | None,
    holds: bool,
    problem: str | None,
    engine: str,
) -> None:
    """The invariant of the module, stated once more and in other words."""
    said = report(usage_bytes=usage, usage_age_seconds=age, budget_bytes=budget, engine=engine)
    held = TARGET.desired.content if holds else Content(None, "other")
    found = of(progress=known(said, held=held, reported_at=reported, problem=problem))
    if found.due:
        assert reported is not None
        assert age is not None
        assert usage is not None
        assert (True, None, "Connected") == (holds, problem, engine)
        assert HELD_SINCE < reported
        assert NOW - reported + age <= FRESH_SECONDS
        assert usage <= budget <= RULE.limit
        assert usage <= RULE.limit * (100 - KEPT_FREE_PERCENT) // 100
    else:
        assert found.reason is Reason.GIVING_BACK
        assert found.why


def test_a_higher_limit_is_set_at_once_and_orders_wait_for_it() -> None:
    """Growing: the limit first, then the budget, whatever the pod reports."""
    small = with_memory(limit=100 * MIB, actual=100 * MIB)
    asked = with_memory(limit=120 * MIB, actual=100 * MIB)
    done = with_memory(limit=120 * MIB, actual=120 * MIB)
    nothing = known(held=None, reported_at=None)
    assert [
        Standing(Reason.RESIZING, "gets the higher limit", due=True, grows=True),
        Standing(Reason.RESIZING, "its kubelet has been asked", grows=True),
        Standing(Reason.RESIZED),
    ] == [of(pod, nothing) for pod in (small, asked, done)]


def test_a_lowered_limit_is_the_kubelets_to_set() -> None:
    """Asked once; what it says is passed on."""
    asked = with_memory(limit=120 * MIB)
    refused = replace(asked, resize_problem="Infeasible: node is full")
    assert [
        Standing(Reason.RESIZING, "its kubelet has been asked"),
        Standing(Reason.RESIZE_REFUSED, "its kubelet says Infeasible: node is full"),
    ] == [of(asked), of(refused)]


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (replace(POD, memory=()), "has no container engine"),
        (with_memory(name="other"), "has no container engine"),
        (with_memory(limit=None), "its container engine has no memory limit"),
        (with_memory(restarts_on_resize=True), "restarts when its memory is resized"),
    ],
)
def test_a_pod_that_cannot_be_resized_in_place_says_why(pod: ObservedPod, why: str) -> None:
    """A restart would lose what is cached; a limit where there was none changes the class of service."""
    found = of(pod)
    assert (Reason.NOT_RESIZABLE, False) == (found.reason, found.due)
    assert why in found.why


def test_a_pod_that_does_not_run_yet_is_left_alone() -> None:
    """What the kernel holds it to is unknown."""
    assert Standing(Reason.RESIZING, "does not run yet") == of(with_memory(actual=None))


@pytest.mark.parametrize(
    ("request_before", "request_after"), [(200 * MIB, "120Mi"), (150 * MIB, "120Mi"), (100 * MIB, "100Mi")]
)
def test_a_request_never_exceeds_the_limit_and_the_class_of_service_stays(
    request_before: int, request_after: str
) -> None:
    """The API server refuses a resize that would change it."""
    resources = {"limits": {"memory": "120Mi"}, "requests": {"memory": request_after}}
    assert {
        "metadata": {"uid": POD.uid},
        "spec": {"containers": [{"name": "engine", "resources": resources}]},
    } == resize_patch(with_memory(request=request_before), RULE)


def test_no_request_is_made_up() -> None:
    """Without one the API server had set it to the limit; a pod that has none stays so."""
    patch = resize_patch(with_memory(request=None), RULE)
    assert {"limits": {"memory": "120Mi"}} == patch["spec"]["containers"][0]["resources"]


def test_a_pod_that_gives_back_is_asked_every_two_seconds() -> None:
    """From the first moment at which its report can show what the plan did; one that fails has its own pauses."""
    assert [HELD_SINCE + SETTLE_SECONDS, NOW + LOOK_AGAIN_SECONDS, None, None] == [
        ask_at(TARGET, each)
        for each in (
            known(reported_at=None),
            known(),
            known(held=None),
            known(failures=1, trouble=Unreachable(Unreached.TIMED_OUT)),
        )
    ]


def test_limits_are_read_as_the_api_server_shows_them() -> None:
    """Spec, status and conditions of a real pod, cut to what matters."""
    wire = {
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "labels": {"membudget.dev/managed": "true"}},
        "spec": {
            "containers": [
                {
                    "name": "engine",
                    "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}, "limits": {"memory": "200Mi"}},
                    "resizePolicy": [
                        {"resourceName": "cpu", "restartPolicy": "RestartContainer"},
                        {"resourceName": "memory", "restartPolicy": "NotRequired"},
                    ],
                },
                {"name": "other", "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]},
            ]
        },
        "status": {
            "containerStatuses": [
                {"name": "engine", "restartCount": 2, "resources": {"limits": {"memory": "209715200"}}},
                {"name": "other", "resources": {"limits": {"memory": "a lot"}}},
            ],
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "PodResizeInProgress", "status": "True", "reason": "Error", "message": "too small"},
            ],
        },
    }
    pod = pod_from(msgspec.convert(wire, PodObject))
    assert (
        (LARGE, ContainerMemory("other", restarts_on_resize=True)),
        "Error: too small",
        2,
    ) == (pod.memory, pod.resize_problem, pod.restarts)
