"""Which pods follow which policy, and the plan of each (R-P11, R-P13).

Covers: selection, the winner between policies, the losers, the profile where no policy selects, and whether a pod may
be dialled. Pure. Does not cover what a pod holds already (`reconcile`). Neighbours: `objects` for what it reads,
`rivals` for which policies select a pod.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from membudget_contract.compile import compile_policy
from membudget_contract.orders import PodIdentity, PolicyIdentity
from membudget_contract.plan import Plan, plan_hash
from membudget_controller.objects import Compiled, ObservedPod, ObservedPolicy
from membudget_controller.rivals import Rival, Rivals

_ENDED = frozenset({"Succeeded", "Failed"})


class AddressProblem(enum.Enum):
    """Why a pod is not dialled."""

    NO_ADDRESS = "has no address yet"
    HOST_NETWORK = "uses the node's network: a sidecar cannot be told from other processes of the node there"
    NOT_ITS_OWN = "has a podIP that is not among its podIPs"
    NOT_ROUTABLE = "has an address that is loopback, link-local, multicast, unspecified, or none"


@dataclass(frozen=True, slots=True)
class Content:
    """What a pod holds or should hold, as orders, acknowledgements and reports name it."""

    policy: PolicyIdentity | None
    plan_hash: str | None
    """None: it never got an order."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What one pod should hold."""

    policy: PolicyIdentity | None
    plan: Plan
    plan_hash: str

    @property
    def content(self) -> Content:
        """To compare with what it holds."""
        return Content(self.policy, self.plan_hash)


@dataclass(frozen=True, slots=True)
class Target:
    """One pod, where it is dialled, and what it should hold."""

    pod: PodIdentity
    address: str | AddressProblem
    restarts: int
    desired: Desired


@dataclass(frozen=True, slots=True)
class Following:
    """Of one policy: the pods that follow it, and those that it selects but another policy wins, with its name."""

    won: list[str] = field(default_factory=list[str])
    lost: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Assignment:
    """The whole: targets by pod uid, pods by policy uid."""

    targets: Mapping[str, Target]
    following: Mapping[str, Following]


def profile_plan() -> Desired:
    """What a pod holds that no policy selects."""
    plan = compile_policy(None)
    return Desired(None, plan, plan_hash(plan))


def assign(policies: Iterable[ObservedPolicy], pods: Iterable[ObservedPod]) -> Assignment:
    """For each live pod the plan of the policy that wins it, or the profile."""
    meaningful: defaultdict[str, list[Rival]] = defaultdict(list)
    following: dict[str, Following] = {}
    for policy in policies:
        following[policy.uid] = Following()
        if isinstance(policy.meaning, Compiled):
            meaningful[policy.namespace].append(Rival(policy, policy.meaning))
    rivals = {namespace: Rivals(members) for namespace, members in meaningful.items()}
    profile = profile_plan()
    targets: dict[str, Target] = {}
    for pod in pods:
        if pod.deleting or pod.phase in _ENDED:
            continue
        selecting = rivals[pod.namespace].selecting(pod.labels) if pod.namespace in rivals else []
        desired = profile
        if selecting:
            winner, meaning = selecting[0]
            desired = Desired(winner.identity, meaning.plan, meaning.plan_hash)
            following[winner.uid].won.append(pod.uid)
            for loser, _ in selecting[1:]:
                following[loser.uid].lost[pod.uid] = winner.name
        identity = PodIdentity(namespace=pod.namespace, name=pod.name, uid=pod.uid)
        targets[pod.uid] = Target(identity, address_of(pod), pod.restarts, desired)
    return Assignment(targets, following)


def address_of(pod: ObservedPod) -> str | AddressProblem:
    """Where the pod is dialled. Its status may have been written by anybody who may patch it: it is not believed."""
    if pod.host_network:
        return AddressProblem.HOST_NETWORK
    if not pod.ip:
        return AddressProblem.NO_ADDRESS
    if pod.ip not in pod.ips:
        return AddressProblem.NOT_ITS_OWN
    return pod.ip if _is_routable(pod.ip) else AddressProblem.NOT_ROUTABLE


def _is_routable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        address = address.ipv4_mapped or address
    limited_broadcast = ipaddress.IPv4Address("255.255.255.255")
    unfit = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return not unfit and address != limited_broadcast
