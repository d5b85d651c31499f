"""Whether a pod's memory limit may be changed now: bytes are given back before it falls, it rises before they grow.

Covers: how far one pod is, why it waits, and the patch that changes it. Pure. Does not patch (`resizes`) nor sum up for
a policy (`resize_condition`). Neighbours: `pod_memory` for the figures, `progress` for what the pod said.

Invariant: a limit is lowered only where the pod holds the plan with the smaller budget, that plan is in force there,
and a use that was measured since fits below the lower limit. A figure that is missing or old lowers nothing: on cgroup
v2 the kernel kills what does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from membudget_contract.orders import PodReport
from membudget_contract.policy_status import Reason
from membudget_contract.quantities import MIB, format_bytes
from membudget_controller.objects import ObservedPod
from membudget_controller.pod_memory import ContainerMemory, ResizeRule
from membudget_controller.progress import SETTLE_SECONDS, Progress, is_refused
from membudget_controller.pushes import Refused
from membudget_controller.rollout import CONNECTED
from membudget_controller.targets import Target

KEPT_FREE_PERCENT: Final = 5
"""Of the lower limit, for what grows between a measurement and the moment in which the kernel gets the new limit."""
FRESH_SECONDS: Final = 15.0
"""A measurement counts for so long, from when it was made; an engine that rests is measured every 10 s."""
LOOK_AGAIN_SECONDS: Final = 2.0
"""Between two reports of a pod that is giving bytes back."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one pod is; `due` where its limit may be changed now."""

    reason: Reason
    why: str = ""
    due: bool = False
    grows: bool = False
    """It is to have a higher limit than it has: what would need that limit waits for it."""


def standing(pod: ObservedPod, rule: ResizeRule, target: Target, known: Progress, now: float) -> Standing:
    """Of one pod that follows a policy with this rule."""
    container = _container(pod, rule)
    problem = _not_resizable(container, rule)
    if container is None or container.limit is None or problem:
        return Standing(Reason.NOT_RESIZABLE, problem)
    if container.limit == rule.limit:
        return _asked(pod, container, rule)
    if container.actual is None:
        return Standing(Reason.RESIZING, "does not run yet")
    if container.limit < rule.limit:
        return Standing(Reason.RESIZING, "gets the higher limit", due=True, grows=True)
    unfit = _unfit(rule, target, known, now)
    return Standing(Reason.GIVING_BACK, unfit) if unfit else Standing(Reason.RESIZING, "gave back enough", due=True)


def limit_of(pod: ObservedPod, rule: ResizeRule) -> int | None:
    """What the kernel holds the container to, in bytes; None where that is not known."""
    container = _container(pod, rule)
    return None if container is None else container.actual


def ask_at(target: Target, known: Progress) -> float | None:
    """When a pod that is giving bytes back is asked for a report; None where it must hold the plan first."""
    if known.held != target.desired.content or known.failures:
        return None  # of one that fails to answer, the pause between attempts decides
    settled = known.held_since + SETTLE_SECONDS
    return settled if known.reported_at is None else max(settled, known.reported_at + LOOK_AGAIN_SECONDS)


def resize_patch(pod: ObservedPod, rule: ResizeRule) -> Mapping[str, Any]:
    """For the pod's subresource `resize`, of this very pod.

    A request that was as large as the limit stays so, or the pod would leave its class of service, which is refused;
    a smaller one stays, as far as it fits.
    """
    container = _container(pod, rule)
    resources: dict[str, Any] = {"limits": {"memory": format_bytes(rule.limit)}}
    if container is not None and container.request is not None:
        asked = rule.limit if container.request == container.limit else min(container.request, rule.limit)
        resources["requests"] = {"memory": format_bytes(asked)}
    return {"metadata": {"uid": pod.uid}, "spec": {"containers": [{"name": rule.container, "resources": resources}]}}


def _container(pod: ObservedPod, rule: ResizeRule) -> ContainerMemory | None:
    return next((each for each in pod.memory if each.name == rule.container), None)


def _not_resizable(container: ContainerMemory | None, rule: ResizeRule) -> str:
    if container is None:
        return f"has no container {rule.container}"
    if container.limit is None:
        return f"its container {rule.container} has no memory limit"
    if container.restarts_on_resize:
        return f"its container {rule.container} restarts when its memory is resized, as its resizePolicy says"
    return ""


def _asked(pod: ObservedPod, container: ContainerMemory, rule: ResizeRule) -> Standing:
    """The spec says what it should: the rest is the kubelet's."""
    if container.actual == rule.limit:
        return Standing(Reason.RESIZED)
    grows = container.actual is None or container.actual < rule.limit
    if pod.resize_problem:
        return Standing(Reason.RESIZE_REFUSED, f"its kubelet says {pod.resize_problem}", grows=grows)
    return Standing(Reason.RESIZING, "its kubelet has been asked", grows=grows)


def _unfit(rule: ResizeRule, target: Target, known: Progress, now: float) -> str:
    """Why the lower limit would be too early; empty where measured figures say that it fits."""
    if known.held != target.desired.content:
        refused = known.trouble if is_refused(known, target.desired) else None
        why = f": {refused.reason}: {refused.detail}" if isinstance(refused, Refused) else " yet"
        return f"does not hold the smaller budget{why}"
    if known.problem:
        return f"holds the smaller budget, but it is not in force there: {known.problem}"
    report, reported_at = known.report, known.reported_at
    if report is None or reported_at is None or reported_at < known.held_since + SETTLE_SECONDS:
        return "has not reported since it got the smaller budget"
    if report.usage_age_seconds is None or now - reported_at + report.usage_age_seconds > FRESH_SECONDS:
        return "does not report a use that was measured lately"
    return _too_much(rule, report)


def _too_much(rule: ResizeRule, report: PodReport) -> str:
    if report.engine != CONNECTED:
        return f"its engine is {report.engine}"
    if report.usage_bytes is None:
        return "does not know its use of memory"
    if report.budget_bytes > rule.limit:
        return f"holds a budget of its own of {_mib(report.budget_bytes)}, which does not fit"
    fits = min(report.budget_bytes, rule.limit * (100 - KEPT_FREE_PERCENT) // 100)
    if report.usage_bytes > fits:
        return f"uses {_mib(report.usage_bytes)} of the {_mib(fits)} that fit into {format_bytes(rule.limit)}"
    return ""


def _mib(amount: int) -> str:
    return f"{amount / MIB:.1f} MiB"
