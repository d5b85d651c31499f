"""An API server in memory: resourceVersions, compare-and-swap, 404, 409, and counted writes.

It fulfils `cluster.Cluster`; what it does with objects is what the real one does (tests/cluster holds them together).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from membudget_contract.policy_status import PolicyStatus
from membudget_contract.quantities import parse_quantity
from membudget_controller.cluster import Definition, Listed, Stored, Transition
from membudget_controller.errors import ApiFailed, api_failure
from membudget_controller.objects import ObservedPod, ObservedPolicy

Key = tuple[str, str]
Kind = TypeVar("Kind", ObservedPolicy, ObservedPod)


class FakeCluster:
    """Also the hand of a user: `apply`, `add_pod`, `delete_policy`, ..."""

    def __init__(self) -> None:
        self.version = 100
        self.policies: dict[Key, ObservedPolicy] = {}
        self.pods: dict[str, ObservedPod] = {}
        self.secrets: dict[Key, Stored] = {}
        self.config_maps: dict[Key, Stored] = {}
        self.events: list[Transition] = []
        self.writes: list[str] = []
        self.statuses: list[PolicyStatus] = []
        self.kind = "Served"
        self.kind_uid = "kind-1"
        self.kind_generation = 1
        """Or Ending: it is marked and its objects go; or Gone."""
        self.is_blind = False
        """The controller may not see the definition."""
        self.may_resize = True
        self.failing: int | None = None
        """Every request is answered with this status."""
        self.before_write: Callable[[str], None] = lambda _: None
        """What somebody else does just before the write arrives."""

    def apply(self, policy: ObservedPolicy) -> ObservedPolicy:
        """Create, or change as an edit of the spec does."""
        key = policy.namespace, policy.name
        before = self.policies.get(key)
        generation = before.generation + 1 if before else 1
        uid = before.uid if before else f"{policy.uid}-{self.version}"
        status = before.status if before else policy.status
        made = replace(policy, uid=uid, generation=generation, status=status, resource_version=self._next())
        self.policies[key] = made
        return made

    def annotate(self, namespace: str, name: str) -> None:
        """Somebody writes metadata: a new version, the same generation."""
        policy = self.policies[namespace, name]
        self.policies[namespace, name] = replace(policy, resource_version=self._next())

    def delete_policy(self, namespace: str, name: str) -> ObservedPolicy:
        """As the event of the deletion shows it."""
        return replace(self.policies.pop((namespace, name)), resource_version=self._next())

    def add_pod(self, pod: ObservedPod) -> ObservedPod:
        """Create or change."""
        self.pods[pod.uid] = replace(pod, resource_version=self._next())
        return self.pods[pod.uid]

    def list_policies(self) -> Listed[ObservedPolicy]:
        """All of them."""
        self._answer("GET policies")
        if self.kind == "Gone":
            raise api_failure("GET policies", 404, "Not Found")
        return Listed(tuple(self.policies.values()), self.version)

    def list_pods(self) -> Listed[ObservedPod]:
        """All of them."""
        self._answer("GET pods")
        return Listed(tuple(self.pods.values()), self.version)

    def latest_version(self) -> int:
        """The count itself."""
        self._answer("GET policies")
        return self.version

    def read_definition(self) -> Definition | None:
        """By `kind`."""
        self._answer("GET kind")
        if self.kind == "Gone":
            raise api_failure("GET kind", 404, "Not Found")
        return None if self.is_blind else Definition(self.kind_uid, self.kind_generation, ending=self.kind != "Served")

    def is_kind_discovered(self) -> bool:
        """As soon as it is served."""
        return self.kind == "Served"

    def read_policy(self, namespace: str, name: str) -> ObservedPolicy:
        """One."""
        self._answer("GET policy")
        return _found(self.policies, (namespace, name))

    def patch_status(self, policy: ObservedPolicy, status: PolicyStatus) -> ObservedPolicy:
        """If it is still at that version."""
        self._write(f"PATCH status of {policy.name}")
        now = _found(self.policies, (policy.namespace, policy.name))
        if now.resource_version != policy.resource_version:
            raise api_failure("PATCH status", 409, "Conflict")
        made = replace(now, status=status, resource_version=self._next())
        self.policies[policy.namespace, policy.name] = made
        self.statuses.append(status)
        self.writes.append(f"status of {policy.name}")
        return made

    def resize_pod(self, pod: ObservedPod, patch: Mapping[str, Any]) -> ObservedPod:
        """If it is still that pod, and the controller may; what the kernel holds it to is the kubelet's to change."""
        self._write(f"PATCH resize of {pod.name}")
        if not self.may_resize:
            raise api_failure("PATCH resize", 403, 'User "controller" cannot patch resource "pods/resize"')
        now = self.pods[pod.uid]
        (asked,) = patch["spec"]["containers"]
        assert patch["metadata"]["uid"] == now.uid
        (container,) = [each for each in now.memory if each.name == asked["name"]]
        limit, request = (parse_quantity(asked["resources"][kind]["memory"]) for kind in ("limits", "requests"))
        self.writes.append(f"limit of {pod.name}")
        return self.add_pod(replace(now, memory=(replace(container, limit=limit, request=request),)))

    def create_event(self, policy: ObservedPolicy, transition: Transition) -> None:
        """Kept."""
        self._write(f"POST event on {policy.name}")
        self.events.append(transition)

    def read_secret(self, namespace: str, name: str) -> Stored:
        """One."""
        self._answer("GET secret")
        return _found(self.secrets, (namespace, name))

    def create_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> Stored:
        """Unless there is one."""
        return self._create("secret", self.secrets, (namespace, name), data)

    def patch_secret(self, namespace: str, name: str, data: Mapping[str, str], resource_version: str) -> Stored:
        """If it is still at that version."""
        return self._patch("secret", self.secrets, (namespace, name), data, resource_version)

    def read_config_map(self, namespace: str, name: str) -> Stored:
        """One."""
        self._answer("GET configmap")
        return _found(self.config_maps, (namespace, name))

    def create_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> Stored:
        """Unless there is one."""
        return self._create("configmap", self.config_maps, (namespace, name), data)

    def patch_config_map(
        self, namespace: str, name: str, data: Mapping[str, str | None], resource_version: str
    ) -> Stored:
        """If it is still at that version; None removes."""
        return self._patch("configmap", self.config_maps, (namespace, name), data, resource_version)

    def store(self, kept: dict[Key, Stored], key: Key, data: Mapping[str, str]) -> Stored:
        """Somebody else writes a Secret or ConfigMap."""
        kept[key] = Stored(str(self._next()), dict(data))
        return kept[key]

    def _create(self, kind: str, kept: dict[Key, Stored], key: Key, data: Mapping[str, str]) -> Stored:
        self._write(f"POST {kind}")
        if key in kept:
            raise api_failure(f"POST {kind}", 409, "AlreadyExists")
        self.writes.append(f"{kind} in {key[0]}")
        return self.store(kept, key, data)

    def _patch(
        self, kind: str, kept: dict[Key, Stored], key: Key, data: Mapping[str, str | None], resource_version: str
    ) -> Stored:
        self._write(f"PATCH {kind}")
        before = _found(kept, key)
        if before.resource_version != resource_version:
            raise api_failure(f"PATCH {kind}", 409, "Conflict")
        self.writes.append(f"{kind} in {key[0]}")
        merged = {**before.data, **data}
        return self.store(kept, key, {name: text for name, text in merged.items() if text is not None})

    def _next(self) -> int:
        self.version += 1
        return self.version

    def _answer(self, request: str) -> None:
        if self.failing is not None:
            raise api_failure(request, self.failing, "as the test wants it")

    def _write(self, request: str) -> None:
        self._answer(request)
        self.before_write(request)


Found = TypeVar("Found")


def _found(kept: Mapping[Key, Found], key: Key) -> Found:
    if key not in kept:
        raise api_failure(f"GET {key}", 404, "Not Found")
    return kept[key]


def unreachable() -> ApiFailed:
    """What the client raises when nobody answers."""
    return ApiFailed("GET /", None, "MaxRetryError")
