"""Checks of a policy against the pods of its namespace: whom it selects, who opted in, who has a sidecar, what limits.

Pure. Covers: pods as facts. Does not cover getting them (`command`) nor who wins where two policies select one pod: the
controller says that in the policies' conditions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from membudget_cli.lint.findings import Finding, error, warning
from membudget_cli.lint.plan_checks import check_plan
from membudget_contract.compile import compile_policy
from membudget_contract.policy import MemoryPolicy
from membudget_contract.selector import MANAGED_LABEL, selects


@dataclass(frozen=True, slots=True)
class PodSeen:
    """Of a pod what decides whether a policy can hold for it."""

    name: str
    labels: dict[str, str]
    has_sidecar: bool
    engine_limit_bytes: int | None
    """Of the container beside the sidecar; None without a limit, or where there is more than one container."""


def check_pods(policy: MemoryPolicy, pods: Sequence[PodSeen]) -> list[Finding]:
    """What is to be said of a policy in the presence of these pods, all of its namespace."""
    selected = [pod for pod in pods if selects(policy.spec.selector, pod.labels)]
    if not selected:
        detail = f"selects none of the {len(pods)} pods of namespace {policy.namespace}"
        return [warning("SelectsNothing", "spec.selector", detail)]
    plan = compile_policy(policy)
    by_limit: dict[int | None, list[str]] = {}
    for pod in selected:
        by_limit.setdefault(pod.engine_limit_bytes, []).append(pod.name)
    of_figures = [
        Finding(
            severity=finding.severity,
            check=finding.check,
            subject=f"{finding.subject} in {_listed(names)}",
            detail=finding.detail,
        )
        for limit, names in by_limit.items()
        for finding in check_plan(plan, limit)
    ]
    return [*of_figures, *_of_membership(selected)]


def _of_membership(selected: Sequence[PodSeen]) -> Iterator[Finding]:
    strangers = [pod.name for pod in selected if pod.labels.get(MANAGED_LABEL) != "true"]
    if strangers:
        detail = f'selected, but without the label {MANAGED_LABEL}: "true", so the controller leaves them alone'
        yield error("NotOptedIn", _listed(strangers), detail)
    alone = [pod.name for pod in selected if not pod.has_sidecar]
    if alone:
        yield error("NoSidecar", _listed(alone), "no container has a port named membudget: nobody takes the plan")


def _listed(names: Sequence[str]) -> str:
    most = 3
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
