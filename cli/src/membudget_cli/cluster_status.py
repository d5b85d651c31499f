"""`membudget status -n NAMESPACE` and `-A`: the policies of a cluster at a glance.

Covers: reading MemoryPolicy objects by the official client and showing what their status says. Does not ask pods: the
controller does, and writes what it heard. Exit code 0 when every policy is programmed, 1 when one is not or nobody
answers.
"""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console
from rich.table import Table

from membudget_cli.cluster import SECONDS, ClusterUnreachable, cluster_client
from membudget_cli.figures import document
from membudget_contract.crd import GROUP, PLURAL, VERSION
from membudget_contract.decoding import decode_json
from membudget_contract.policy_status import Condition, ConditionStatus, ConditionType, PolicyStatus


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str
    generation: int


class _Budget(msgspec.Struct, frozen=True):
    total: str | None = None


class _Spec(msgspec.Struct, frozen=True):
    mode: str = "Enforce"
    profile: str = "Production"
    budget: _Budget = _Budget()


class ListedPolicy(msgspec.Struct, frozen=True):
    """Of a policy what a glance needs."""

    metadata: _Metadata
    spec: _Spec
    status: PolicyStatus = PolicyStatus()


class _PolicyList(msgspec.Struct, frozen=True):
    items: tuple[ListedPolicy, ...]


def show_cluster_status(namespace: str | None, output: str) -> int:
    """Print the policies of one namespace, or of all with None; returns the exit code."""
    try:
        policies = _policies(namespace)
    except ClusterUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if output != "table":
        sys.stdout.write(document(policies, output))
    elif not policies:
        sys.stdout.write(f"no MemoryPolicy in {namespace or 'any namespace'}\n")
    else:
        Console().print(policies_table(policies))
    return 0 if all(_is_true(policy, ConditionType.PROGRAMMED) for policy in policies) else 1


def policies_table(policies: tuple[ListedPolicy, ...]) -> Table:
    """One line a policy, and beneath it what does not hold and why."""
    table = Table(
        "namespace", "policy", "mode", "total", "matched", "programmed", "refused", "ready", "what is missing"
    )
    for policy in policies:
        status = policy.status
        ready = _condition(policy, ConditionType.READY)
        table.add_row(
            policy.metadata.namespace,
            policy.metadata.name,
            policy.spec.mode,
            policy.spec.budget.total or f"of {policy.spec.profile}",
            _count(status.matched_pods),
            _count(status.programmed_pods),
            _count(status.refused_pods),
            ready.status if ready else "-",
            _missing(policy),
        )
    return table


def _missing(policy: ListedPolicy) -> str:
    if policy.status.observed_generation != policy.metadata.generation:
        return "the controller has not seen this generation yet; does it run?"
    unmet = [condition for condition in policy.status.conditions if condition.status is not ConditionStatus.TRUE]
    return "\n".join(f"{condition.type}: {condition.reason}: {condition.message}" for condition in unmet)


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)


def _condition(policy: ListedPolicy, wanted: ConditionType) -> Condition | None:
    return next((condition for condition in policy.status.conditions if condition.type is wanted), None)


def _is_true(policy: ListedPolicy, wanted: ConditionType) -> bool:
    condition = _condition(policy, wanted)
    current = policy.status.observed_generation == policy.metadata.generation
    return current and condition is not None and condition.status is ConditionStatus.TRUE


def _policies(namespace: str | None) -> tuple[ListedPolicy, ...]:
    place = {"group": GROUP, "version": VERSION, "plural": PLURAL}
    keywords = {"_preload_content": False, "_request_timeout": SECONDS}
    with cluster_client() as client:
        api = client.CustomObjectsApi()
        if namespace is None:
            response = api.list_cluster_custom_object(**place, **keywords)
        else:
            response = api.list_namespaced_custom_object(namespace=namespace, **place, **keywords)
    try:
        return decode_json(response.data, _PolicyList).items
    except msgspec.DecodeError as error:
        raise ClusterUnreachable(f"the cluster does not answer as it should: {error}") from None
