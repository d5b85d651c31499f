"""What the controller keeps of a policy and of a pod, read from the objects of the API server.

Covers: the few fields that matter, and what a policy compiles to. Everything else of an object is dropped while it is
decoded. Pure. Does not cover holding them (`observed`) nor getting them (`cluster`, `handlers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from membudget_contract.compile import compile_policy
from membudget_contract.decoding import json_decoder
from membudget_contract.errors import ContractError
from membudget_contract.orders import PolicyIdentity
from membudget_contract.plan import Plan, plan_hash
from membudget_contract.policy import API_VERSION, KIND, RolloutPolicy, parse_policy
from membudget_contract.policy_status import PolicyStatus
from membudget_contract.selector import MANAGED_LABEL, LabelSelector
from membudget_controller.pod_memory import (
    ContainerMemory,
    ResizeRule,
    WireCondition,
    WireContainer,
    WireContainerStatus,
    WirePart,
    container_memory,
    resize_problem,
)


@dataclass(frozen=True, slots=True)
class RolloutRule:
    """In which steps a change goes out; without a word of the policy, all at once."""

    max_percent: int = 100
    pause_seconds: int = 0

    @classmethod
    def of(cls, written: RolloutPolicy) -> RolloutRule:
        """What the policy says, and the defaults where it says nothing."""
        percent, pause = written.max_percent, written.pause_seconds
        return cls(100 if percent is None else percent, 0 if pause is None else pause)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a policy means."""

    selector: LabelSelector
    precedence: int
    plan: Plan
    plan_hash: str
    rollout: RolloutRule
    resize: ResizeRule | None = None


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why a policy means nothing: the field and what is wrong with it."""

    problem: str


@dataclass(frozen=True, slots=True)
class ObservedPolicy:
    """One MemoryPolicy at one resourceVersion."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    generation: int
    created: str
    """RFC 3339 in UTC, as the API server writes it: ordered like text."""
    meaning: Compiled | Invalid
    status: PolicyStatus

    @property
    def identity(self) -> PolicyIdentity:
        """As orders name it."""
        return PolicyIdentity(name=self.name, uid=self.uid, generation=self.generation)


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """One opted-in pod at one resourceVersion."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    labels: Mapping[str, str]
    ip: str
    ips: tuple[str, ...]
    host_network: bool
    phase: str
    deleting: bool
    restarts: int
    """Of all its containers together: when it moves, what the pod acknowledged may be gone."""
    memory: tuple[ContainerMemory, ...] = ()
    resize_problem: str | None = None
    """Why its kubelet does not carry out the last resize."""

    @property
    def is_managed(self) -> bool:
        """Whether it opts in."""
        return self.labels.get(MANAGED_LABEL) == "true"


class Metadata(WirePart, frozen=True, kw_only=True):
    """Of an object."""

    namespace: str = ""
    name: str
    uid: str
    resource_version: str
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None


class PolicyObject(WirePart, frozen=True, kw_only=True):
    """A MemoryPolicy on the wire."""

    metadata: Metadata
    spec: Any = None
    status: Any = None


class _PodAddress(WirePart, frozen=True):
    ip: str = ""


class _PodSpec(WirePart, frozen=True):
    host_network: bool = False
    containers: tuple[WireContainer, ...] = ()


class _PodStatus(WirePart, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[_PodAddress, ...] = msgspec.field(name="podIPs", default=())
    container_statuses: tuple[WireContainerStatus, ...] = ()
    init_container_statuses: tuple[WireContainerStatus, ...] = ()
    conditions: tuple[WireCondition, ...] = ()


class PodObject(WirePart, frozen=True, kw_only=True):
    """A Pod on the wire."""

    metadata: Metadata
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


# Also for `msgspec.convert`, which would work a type out beside other threads: see `membudget_contract.decoding`.
POLICIES: Final = json_decoder(PolicyObject)
PODS: Final = json_decoder(PodObject)
json_decoder(PolicyStatus)


def policy_from(wire: PolicyObject) -> ObservedPolicy:
    """What matters of it."""
    metadata = wire.metadata
    return ObservedPolicy(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=int(metadata.resource_version),
        generation=metadata.generation,
        created=metadata.creation_timestamp,
        meaning=_meaning(metadata, wire.spec),
        status=_status(wire.status),
    )


def pod_from(wire: PodObject) -> ObservedPod:
    """What matters of it."""
    metadata, status = wire.metadata, wire.status
    containers = (*status.container_statuses, *status.init_container_statuses)
    return ObservedPod(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=int(metadata.resource_version),
        labels=metadata.labels or {},
        ip=status.pod_ip,
        ips=tuple(address.ip for address in status.pod_ips),
        host_network=wire.spec.host_network,
        phase=status.phase,
        deleting=metadata.deletion_timestamp is not None,
        restarts=sum(container.restart_count for container in containers),
        memory=container_memory(wire.spec.containers, status.container_statuses),
        resize_problem=resize_problem(status.conditions),
    )


def _meaning(metadata: Metadata, spec: object) -> Compiled | Invalid:
    """The API server refuses most of what is invalid; what gets past it is told in the conditions."""
    named = {"name": metadata.name, "namespace": metadata.namespace}
    try:
        policy = parse_policy({"apiVersion": API_VERSION, "kind": KIND, "metadata": named, "spec": spec})
        plan = compile_policy(policy)
    except ContractError as error:
        return Invalid(str(error))
    resize = ResizeRule.of(policy.spec.resize)
    plan = resize.sized(plan) if resize else plan
    return Compiled(
        policy.spec.selector, policy.spec.precedence, plan, plan_hash(plan), RolloutRule.of(policy.spec.rollout), resize
    )


def _status(written: object) -> PolicyStatus:
    """As it was written; one that cannot be read is replaced as if there were none."""
    try:
        return msgspec.convert(written, PolicyStatus)
    except msgspec.ValidationError:
        return PolicyStatus()
