"""The memory limit of a pod's container: what it is, and what its policy wants it to be.

Covers: requests and limits as the API server shows them, what became of the last resize, the rule of a policy. Pure.
Does not decide whether a limit may be changed now (`shrink`). Neighbour: `objects` reads whole pods and policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from membudget_contract.errors import QuantityInvalid
from membudget_contract.plan import Plan
from membudget_contract.policy_resize import ENGINE_CONTAINER, ResizeMode, ResizePolicy
from membudget_contract.quantities import Amount, parse_quantity

_RESTART: Final = "RestartContainer"
_PENDING: Final = "PodResizePending"
_IN_PROGRESS: Final = "PodResizeInProgress"
_ERROR: Final = "Error"


@dataclass(frozen=True, slots=True)
class ContainerMemory:
    """One container; bytes, None where nothing is set or known."""

    name: str
    request: int | None = None
    limit: int | None = None
    """Asked for, in the pod's spec."""
    actual: int | None = None
    """What the kubelet says the kernel holds it to."""
    restarts_on_resize: bool = False


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """The limit that a policy asks for."""

    limit: int
    container: str

    @classmethod
    def of(cls, written: ResizePolicy) -> ResizeRule | None:
        """None where the policy leaves limits alone."""
        if written.mode is not ResizeMode.SHRINK_FIRST or written.limit is None:
            return None
        return cls(written.limit.of(0), written.container or ENGINE_CONTAINER)

    def sized(self, plan: Plan) -> Plan:
        """The plan with its total in bytes: a percent is one of the limit that is wanted, not of the one there is."""
        return msgspec.structs.replace(plan, total=str(Amount(plan.total).of(self.limit)))


class WirePart(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Decoded once, read once."""


class WireResources(WirePart, frozen=True):
    """Of a container."""

    requests: dict[str, str | int] | None = None
    limits: dict[str, str | int] | None = None


class WireResizePolicy(WirePart, frozen=True):
    """What a change of one resource does to a container."""

    resource_name: str = ""
    restart_policy: str = ""


class WireContainer(WirePart, frozen=True):
    """Of a pod's spec."""

    name: str = ""
    resources: WireResources = WireResources()
    resize_policy: tuple[WireResizePolicy, ...] = ()


class WireContainerStatus(WirePart, frozen=True):
    """Of a pod's status."""

    name: str = ""
    restart_count: int = 0
    resources: WireResources | None = None


class WireCondition(WirePart, frozen=True):
    """Of a pod's status."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


def container_memory(
    containers: Iterable[WireContainer], statuses: Iterable[WireContainerStatus]
) -> tuple[ContainerMemory, ...]:
    """Of the main containers."""
    actual = {status.name: status.resources for status in statuses}
    return tuple(
        ContainerMemory(
            container.name,
            request=_memory(container.resources.requests),
            limit=_memory(container.resources.limits),
            actual=_memory(found.limits) if (found := actual.get(container.name)) else None,
            restarts_on_resize=any(
                (each.resource_name, each.restart_policy) == ("memory", _RESTART) for each in container.resize_policy
            ),
        )
        for container in containers
    )


def resize_problem(conditions: Iterable[WireCondition]) -> str | None:
    """Why the kubelet does not carry out the last resize; None while it is at it, or has done it."""
    for condition in conditions:
        failed = condition.type == _PENDING or (condition.type, condition.reason) == (_IN_PROGRESS, _ERROR)
        if failed and condition.status == "True":
            return f"{condition.reason}: {condition.message}"
    return None


def _memory(amounts: Mapping[str, str | int] | None) -> int | None:
    try:
        return parse_quantity(str(amounts["memory"])) if amounts and "memory" in amounts else None
    except QuantityInvalid:
        return None
