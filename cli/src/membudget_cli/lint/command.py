"""`membudget lint`: policies in, findings out.

Covers: reading policies and the pods of a cluster, showing what was found. Does not cover the checks (`plan_checks`,
`pod_checks`). Exit codes: 0 nothing, or warnings only; 1 an error, a warning with --strict, or no cluster that answers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from membudget_cli.cluster import SECONDS, ClusterUnreachable, cluster_client, context_namespace
from membudget_cli.figures import document
from membudget_cli.lint.findings import Finding, Severity, error
from membudget_cli.lint.plan_checks import check_plan
from membudget_cli.lint.pod_checks import PodSeen, check_pods
from membudget_cli.pod_exec import PORT_NAME
from membudget_contract.compile import compile_policy
from membudget_contract.errors import ContractError, PolicyInvalid
from membudget_contract.policy import MemoryPolicy
from membudget_contract.quantities import Amount
from membudget_sidecar.plans.policy_file import PolicyFile


def show_lint(
    paths: Sequence[Path], limit: int | None, output: str, *, in_cluster: bool, namespace: str | None, strict: bool
) -> int:
    """Check every policy and print what was found; returns the exit code.

    `namespace`: in a cluster, of policies that name none; None: that of KUBECONFIG's context.
    """
    try:
        findings = {str(path): _findings(path, limit, namespace, in_cluster=in_cluster) for path in paths}
    except ClusterUnreachable as unreachable:
        sys.stderr.write(f"membudget: {unreachable}\n")
        return 1
    if output != "table":
        sys.stdout.write(document(findings, output))
    else:
        _show(findings)
    worst = {finding.severity for found in findings.values() for finding in found}
    return 1 if Severity.ERROR in worst or (strict and worst) else 0


def _findings(path: Path, limit: int | None, namespace: str | None, *, in_cluster: bool) -> list[Finding]:
    try:
        policy = PolicyFile(path).load()
        plan = compile_policy(policy)
    except PolicyInvalid as refused:
        return [error(refused.reason, refused.field, refused.problem)]
    except ContractError as refused:
        return [error(refused.reason, "spec", str(refused))]
    return check_pods(policy, _pods(policy, namespace)) if in_cluster else check_plan(plan, limit)


def _show(findings: dict[str, list[Finding]]) -> None:
    console = Console()
    for path, found in findings.items():
        if not found:
            console.print(f"{path}: nothing to say", highlight=False)
            continue
        table = Table("", "check", "where", "what", title=path, title_justify="left")
        for finding in found:
            style = "red" if finding.severity is Severity.ERROR else "yellow"
            table.add_row(f"[{style}]{finding.severity}[/]", finding.check, finding.subject, finding.detail)
        console.print(table)


def _pods(policy: MemoryPolicy, namespace: str | None) -> list[PodSeen]:
    with cluster_client() as client:
        where = policy.namespace or namespace or context_namespace()
        listed = client.CoreV1Api().list_namespaced_pod(where, _request_timeout=SECONDS)
    return [_seen(pod) for pod in listed.items]


def _seen(pod: Any) -> PodSeen:
    containers = [*(pod.spec.init_containers or ()), *pod.spec.containers]
    sidecars = [each for each in containers if any(port.name == PORT_NAME for port in each.ports or ())]
    engines = [each for each in pod.spec.containers if each not in sidecars]
    limit = _memory_limit(engines[0]) if len(engines) == 1 else None
    return PodSeen(pod.metadata.name, dict(pod.metadata.labels or {}), bool(sidecars), limit)


def _memory_limit(container: Any) -> int | None:
    limits: dict[str, str] = (container.resources and container.resources.limits) or {}
    return Amount(limits["memory"]).of(0) if "memory" in limits else None
