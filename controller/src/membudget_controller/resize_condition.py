"""The condition Resized of a policy, from how far its pods are.

Covers: which reason is told first, and the pods and figures it names. Pure. Neighbours: `shrink` for single pods,
`conditions` for the other conditions and for when a message is written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from membudget_contract.policy import Mode
from membudget_contract.policy_status import ConditionStatus, Reason
from membudget_controller.conditions import NO_PODS, Answer, named
from membudget_controller.objects import Compiled, ObservedPolicy
from membudget_controller.shrink import Standing

MOST_DETAIL: Final = 500
"""Characters of what an API server or a kubelet says."""
_WORST_FIRST: Final = (Reason.RESIZE_REFUSED, Reason.NOT_RESIZABLE, Reason.GIVING_BACK, Reason.RESIZING)


def resized(policy: ObservedPolicy, standings: Mapping[str, Standing]) -> tuple[Answer, int] | None:
    """The answer and the count of pods that have the limit; None where the policy leaves limits alone.

    Args:
        policy: which it is.
        standings: of the pods that follow it, by their names.
    """
    if not isinstance(policy.meaning, Compiled) or policy.meaning.resize is None:
        return None
    done = sum(one.reason is Reason.RESIZED for one in standings.values())
    if policy.meaning.plan.mode is Mode.OBSERVE:
        return Answer(ConditionStatus.FALSE, Reason.OBSERVING, "in Observe mode nothing is given back or resized"), done
    if not standings:
        return Answer(ConditionStatus.UNKNOWN, Reason.NO_PODS, NO_PODS), 0
    for reason in _WORST_FIRST:
        pods = sorted(name for name, one in standings.items() if one.reason is reason)
        if pods:
            return Answer(ConditionStatus.FALSE, reason, f"{named(pods)}: {standings[pods[0]].why[:MOST_DETAIL]}"), done
    return Answer(ConditionStatus.TRUE, Reason.RESIZED, "every pod has the limit"), done
