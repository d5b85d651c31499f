"""The status of a policy, from what became of it (R-P10).

Covers: counts, the conditions with reason and message, and when a transition time moves. Pure. Does not write
(`status_writer`). Neighbours: `pod_facts` for single pods, `membudget_contract.policy_status` for the types.

Messages name pods and fields and hold no figure that changes by itself: the status of a converged system is written
once and then left alone.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from membudget_contract.policy_status import Condition, ConditionStatus, ConditionType, PolicyStatus, Reason
from membudget_controller.objects import Invalid, ObservedPolicy
from membudget_controller.pod_facts import PodFacts, Standing

NAMED_PODS: Final = 3
"""A message names so many and counts the rest."""
_DETAIL_LENGTH: Final = 500
_FIGURE: Final = re.compile(r"\d+")

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_REASONS: Final = {
    Standing.REFUSED: Reason.REFUSED,
    Standing.UNREACHABLE: Reason.UNREACHABLE,
    Standing.KEYS_PENDING: Reason.KEYS_PENDING,
    Standing.PUSHING: Reason.PUSHING,
}
NO_PODS: Final = "no pod that opts in is left to follow it"


class Answer(NamedTuple):
    """To one of the questions."""

    status: ConditionStatus
    reason: Reason
    message: str


def policy_status(
    policy: ObservedPolicy,
    followers: Sequence[PodFacts],
    lost_to: Iterable[str],
    now: dt.datetime,
    *,
    paused: str | None = None,
    resized: tuple[Answer, int] | None = None,
) -> PolicyStatus:
    """The status that the policy should have; equal to the one it has where nothing changed.

    Args:
        policy: with its present status, which keeps the transition times.
        followers: the pods that follow it.
        lost_to: the policies that win pods which it selects too.
        now: for what changes.
        paused: why its rollout is, None while it is not.
        resized: the answer about its pods' limits and how many have theirs, None where it leaves limits alone.
    """
    answers = {
        ConditionType.ACCEPTED: _accepted(policy, followers, sorted(set(lost_to))),
        ConditionType.PROGRAMMED: _programmed(policy, followers, paused),
        ConditionType.READY: _ready(followers),
    } | ({} if resized is None else {ConditionType.RESIZED: resized[0]})
    before = {condition.type: condition for condition in policy.status.conditions}
    standings = [pod.standing for pod in followers]
    return PolicyStatus(
        observed_generation=policy.generation,
        matched_pods=len(followers),
        programmed_pods=standings.count(Standing.PROGRAMMED),
        refused_pods=standings.count(Standing.REFUSED),
        resized_pods=None if resized is None else resized[1],
        conditions=tuple(
            _condition(kind, answer, policy.generation, before.get(kind), now) for kind, answer in answers.items()
        ),
    )


def _condition(
    kind: ConditionType, answer: Answer, generation: int, before: Condition | None, now: dt.datetime
) -> Condition:
    unmoved = before is not None and before.status is answer.status
    same_words = (
        before is not None
        and before.observed_generation == generation
        and _without_figures(before.message) == _without_figures(answer.message)
    )
    return Condition(
        type=kind,
        status=answer.status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and unmoved else now.replace(microsecond=0),
        reason=answer.reason,
        message=before.message if before and same_words else answer.message,
    )


def _without_figures(message: str) -> tuple[str, str]:
    """Names as they stand, and what a pod said without the bytes in it, which differ each time it is asked."""
    names, _, why = message.partition(": ")
    return names, _FIGURE.sub("", why)


def _accepted(policy: ObservedPolicy, followers: Sequence[PodFacts], winners: Sequence[str]) -> Answer:
    if isinstance(policy.meaning, Invalid):
        return Answer(_FALSE, Reason.INVALID, policy.meaning.problem)
    if winners:
        taken = "pods that it selects" if followers else "every pod that it selects"
        message = f"{named(winners)} win {taken}: higher precedence, else older, else first by name"
        return Answer(_FALSE, Reason.CONFLICTED, message)
    overridden = [pod.name for pod in followers if pod.overridden]
    if overridden:
        return Answer(_TRUE, Reason.OVERRIDDEN, f"environment or a configure call refines it in {named(overridden)}")
    return Answer(_TRUE, Reason.ACCEPTED, "compiled to a plan")


def _programmed(policy: ObservedPolicy, followers: Sequence[PodFacts], paused: str | None) -> Answer:
    if not followers:
        return Answer(_UNKNOWN, Reason.NO_PODS, NO_PODS)
    if paused is not None:
        return Answer(_FALSE, Reason.PAUSED, f"the others wait for {paused[:_DETAIL_LENGTH]}")
    for standing, reason in _REASONS.items():
        pods = [pod for pod in followers if pod.standing is standing]
        if pods:
            return Answer(_FALSE, reason, f"{named([pod.name for pod in pods])}: {pods[0].why[:_DETAIL_LENGTH]}")
    return Answer(_TRUE, Reason.PROGRAMMED, f"every pod acknowledged generation {policy.generation}")


def _ready(followers: Sequence[PodFacts]) -> Answer:
    if not followers:
        return Answer(_UNKNOWN, Reason.NO_PODS, NO_PODS)
    over = [pod.name for pod in followers if pod.over_budget]
    if over:
        return Answer(_FALSE, Reason.OVER_BUDGET, f"{named(over)}: over the budget")
    silent = [pod.name for pod in followers if pod.over_budget is None]
    if silent:
        return Answer(_UNKNOWN, Reason.REPORT_MISSING, f"{named(silent)}: no report with a figure")
    return Answer(_TRUE, Reason.UNDER_BUDGET, "every pod reports its memory under the budget")


def named(names: Sequence[str]) -> str:
    """The first few in the order of the alphabet, so that the same pods make the same message."""
    first = sorted(names)[:NAMED_PODS]
    rest = len(names) - len(first)
    return ", ".join(first) + (f" and {rest} more" if rest else "")
