"""The budget that would do for every pod of a policy, from what its pods were seen to need (R-P14).

Covers: from the pods' last reports to one recommendation for each policy, with its reasons. Pure. Does not measure (the
sidecars do), serve (`probes`) nor apply anything: a person decides. Neighbour: `membudget_contract.recommend` for one
pod.

One policy gives one budget to all its pods, so each component is that of the pod that needs most of it, and the total
holds all of them. A percentile would leave a pod of every hundred over its budget for good; instead a pod that stands
out is named, so that it can be looked at before the budget of all is raised for it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final

from membudget_contract.plan import Plan
from membudget_contract.quantities import MIB
from membudget_contract.recommend import PodNeed, largest_components, total_for
from membudget_contract.recommendations_api import PolicyRecommendation, PolicyRecommendations
from membudget_controller.objects import Compiled, ObservedPolicy
from membudget_controller.progress import Progress
from membudget_controller.targets import Assignment

STANDS_OUT: Final = 1.5
"""A pod that needs so many times what half of the pods make do with is named."""
LEAST_PODS_TO_STAND_OUT: Final = 4
_SECONDS_PER_HOUR: Final = 3600


def advise_all(
    policies: tuple[ObservedPolicy, ...], assignment: Assignment, progress: Mapping[str, Progress]
) -> PolicyRecommendations:
    """For every policy that means something."""
    advised = [
        advise(
            policy,
            policy.meaning.plan,
            {
                assignment.targets[uid].pod.name: _need(progress.get(uid))
                for uid in assignment.following[policy.uid].won
            },
        )
        for policy in policies
        if isinstance(policy.meaning, Compiled)
    ]
    return PolicyRecommendations(policies=tuple(sorted(advised, key=lambda one: (one.namespace, one.policy))))


def advise(policy: ObservedPolicy, plan: Plan, needs: Mapping[str, PodNeed | None]) -> PolicyRecommendation:
    """One policy, from the needs of its pods by name; None where a pod told of none."""
    told = {name: need for name, need in needs.items() if need is not None}
    totals = {name: need.total_bytes for name, need in told.items() if need.total_bytes is not None}
    made = PolicyRecommendation(
        namespace=policy.namespace,
        policy=policy.name,
        total=plan.total,
        pods=len(needs),
        pods_seen=len(totals),
        absent=None if totals else _absent(told, len(needs)),
    )
    if not totals:
        return made
    seen = {name: told[name] for name in totals}
    names = sorted({part for need in seen.values() for part in need.components})
    most = {part: max(need.components.get(part, 0) for need in seen.values()) for part in names}
    parts = largest_components(most)
    total = max(total_for(sum(parts.values()), plan.thresholds.soft.percent), *totals.values())
    above = max((need.limit_bytes or 0) - totals[name] for name, need in seen.items())
    return PolicyRecommendation(
        namespace=made.namespace,
        policy=made.policy,
        total=made.total,
        pods=made.pods,
        pods_seen=made.pods_seen,
        total_bytes=total,
        components=parts,
        limit_bytes=total + above,
        reasons=_reasons(made, seen, totals, total),
    )


def _reasons(
    made: PolicyRecommendation, seen: Mapping[str, PodNeed], totals: Mapping[str, int], total: int
) -> tuple[str, ...]:
    hours = min(need.seconds for need in seen.values()) / _SECONDS_PER_HOUR
    most = max(totals, key=lambda name: (totals[name], name))
    middle = int(statistics.median(totals.values()))
    said = [
        f"{made.pods_seen} of {made.pods} pods were seen for long enough, each for at least {hours:.1f} h",
        f"{most} needs most, {_mib(totals[most])}; half of the pods need at most {_mib(middle)}",
    ]
    if len(totals) >= LEAST_PODS_TO_STAND_OUT and totals[most] >= STANDS_OUT * middle:
        said.append(f"{most} stands out: look at it before all pods get a budget for it")
    if total > totals[most]:
        said.append("no single pod needs the total: each component is that of the pod that needs most of it")
    return tuple(said)


def _absent(told: Mapping[str, PodNeed], pods: int) -> str:
    if not pods:
        return "no pod follows it"
    if not told:
        return "no pod has told yet what it needs; reports come once a minute"
    name = min(told)
    return f"{name}: {told[name].absent}"


def _need(known: Progress | None) -> PodNeed | None:
    return known.report.need if known is not None and known.report is not None else None


def _mib(amount: int) -> str:
    return f"{amount / MIB:.0f} MiB"
