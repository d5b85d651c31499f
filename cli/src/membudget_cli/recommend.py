"""`membudget recommend`: the budget that one engine, or every pod of a policy, would need, with the reasons.

Covers: one sidecar, here or in a pod; for a cluster what its controller answers, fetched through the API server's proxy
to the controller's pod, so that a person needs no route to the pod network. Whoever asks needs the right to list pods
and to `get` `pods/proxy` in the controller's namespace. Nothing is applied. Exit code 0 when everything asked for has
figures, 1 when something has none yet or nobody answers.
"""

from __future__ import annotations

import sys
from typing import Final, Protocol

import msgspec
from rich.console import Console
from rich.table import Table

from membudget_cli.cluster import SECONDS, ClusterUnreachable, cluster_client
from membudget_cli.figures import document, mebibytes
from membudget_cli.sidecar_client import SidecarUnreachable
from membudget_contract.decoding import decode_json
from membudget_contract.recommend import Recommendation
from membudget_contract.recommendations_api import (
    CONTROLLER_PORT,
    RECOMMENDATIONS_PATH,
    PolicyRecommendation,
    PolicyRecommendations,
)

CONTROLLER_LABELS: Final = "app.kubernetes.io/name=membudget,app.kubernetes.io/component=controller"


class _Metadata(msgspec.Struct, frozen=True):
    name: str


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Metadata


class _PodList(msgspec.Struct, frozen=True):
    items: tuple[_Pod, ...]


class Adviser(Protocol):
    """One sidecar."""

    def recommendation(self) -> Recommendation:
        """The budget that its engine would need; raises SidecarUnreachable."""
        ...


def recommend_for_one(client: Adviser, output: str) -> int:
    """Print what one sidecar recommends; returns the exit code."""
    try:
        advised = client.recommendation()
    except SidecarUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if output != "table":
        sys.stdout.write(document(advised, output))
    else:
        _print_one(Console(), advised)
    return 0 if advised.absent is None else 1


def recommend_for_policies(controller_namespace: str, namespace: str | None, policy: str | None, output: str) -> int:
    """Print what the controller recommends for policies of one namespace, or of all with None."""
    try:
        answered = _ask_controller(controller_namespace)
    except ClusterUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    chosen = tuple(
        one for one in answered.policies if namespace in {None, one.namespace} and policy in {None, one.policy}
    )
    if output != "table":
        sys.stdout.write(document(PolicyRecommendations(policies=chosen), output))
    elif chosen:
        _print_policies(Console(), chosen)
    else:
        sys.stdout.write(f"the controller follows no such policy in {namespace or 'any namespace'}\n")
    return 0 if chosen and all(one.absent is None for one in chosen) else 1


def _ask_controller(namespace: str) -> PolicyRecommendations:
    keywords = {"_preload_content": False, "_request_timeout": SECONDS}
    with cluster_client() as client:
        api = client.CoreV1Api()
        running = {"label_selector": CONTROLLER_LABELS, "field_selector": "status.phase=Running"}
        listed = api.list_namespaced_pod(namespace, **running, **keywords)
        pods = decode_json(listed.data, _PodList).items
        if not pods:
            raise ClusterUnreachable(f"no controller runs in {namespace}; say where with --controller-namespace")
        place = f"{pods[0].metadata.name}:{CONTROLLER_PORT}", namespace, RECOMMENDATIONS_PATH.removeprefix("/")
        answer = api.connect_get_namespaced_pod_proxy_with_path(*place, **keywords)
        try:
            return decode_json(answer.data, PolicyRecommendations)
        except msgspec.DecodeError as error:
            raise ClusterUnreachable(f"the controller does not answer as it should: {error}") from None


def _print_one(console: Console, advised: Recommendation) -> None:
    if advised.absent is not None:
        console.print(f"nothing to recommend yet: {advised.absent}", highlight=False, markup=False)
        return
    table = Table("of the policy", "recommended")
    figures = {"total": advised.total_bytes, **advised.components, "container limit": advised.limit_bytes}
    for name, size in figures.items():
        table.add_row(name, mebibytes(size))
    console.print(table)
    _print_reasons(console, advised.reasons)


def _print_policies(console: Console, policies: tuple[PolicyRecommendation, ...]) -> None:
    table = Table("namespace", "policy", "pods seen", "total now", "total", "components", "container limit")
    for one in policies:
        parts = "\n".join(f"{name} {mebibytes(size)}" for name, size in one.components.items())
        told = mebibytes(one.total_bytes), parts or "-", mebibytes(one.limit_bytes)
        table.add_row(one.namespace, one.policy, f"{one.pods_seen} of {one.pods}", one.total, *told)
    console.print(table)
    for one in policies:
        console.print(f"{one.namespace}/{one.policy}", highlight=False)
        _print_reasons(console, one.reasons if one.absent is None else (one.absent,))


def _print_reasons(console: Console, reasons: tuple[str, ...]) -> None:
    for reason in reasons:
        console.print(f"  {reason}", highlight=False, markup=False)
