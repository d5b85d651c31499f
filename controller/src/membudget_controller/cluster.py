"""What the controller asks of the API server, as a small protocol.

Covers: lists, the status of a policy, one Secret, ConfigMaps, events. All of it blocks and is called from the loop's
thread. Does not speak HTTP (`api_client`). Failures are `errors.ApiFailed` and its kinds; a patch that names a
resourceVersion is a compare-and-swap and raises `ApiConflict` where the object has moved on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from membudget_contract.policy_status import PolicyStatus
from membudget_controller.objects import ObservedPod, ObservedPolicy

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Listed(Generic[Kind]):
    """A full list, consistent as of its resourceVersion."""

    items: tuple[Kind, ...]
    resource_version: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The data of a Secret or ConfigMap; texts that no repr shows."""

    resource_version: str
    data: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transition:
    """Something about a policy that people should see in `kubectl describe`."""

    reason: str
    note: str
    warning: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """The kind itself: another `uid` is another kind of the same name, whose watches begin anew."""

    uid: str
    generation: int
    """Of its schemas: another one reads stored policies in another way."""
    ending: bool
    """It is being deleted: then a short list says nothing."""


class Cluster(Protocol):
    """One API server, seen with the controller's rights."""

    def list_policies(self) -> Listed[ObservedPolicy]:
        """All policies in the watched namespaces; ApiNotFound where the kind is not served."""
        ...

    def list_pods(self) -> Listed[ObservedPod]:
        """All opted-in pods in the watched namespaces."""
        ...

    def latest_version(self) -> int:
        """What the store counts to now; it falls only where the store was restored."""
        ...

    def read_definition(self) -> Definition | None:
        """Of MemoryPolicy; ApiNotFound where it is gone, None where this controller may not see it."""
        ...

    def is_kind_discovered(self) -> bool:
        """Whether who asks the API server for its kinds is told of MemoryPolicy; after a list of it, by moments."""
        ...

    def read_policy(self, namespace: str, name: str) -> ObservedPolicy:
        """One policy as it is now."""
        ...

    def patch_status(self, policy: ObservedPolicy, status: PolicyStatus) -> ObservedPolicy:
        """Write the status of the policy at its resourceVersion; the policy as it is then."""
        ...

    def resize_pod(self, pod: ObservedPod, patch: Mapping[str, Any]) -> ObservedPod:
        """Patch the pod's subresource `resize`; the pod as it is then."""
        ...

    def create_event(self, policy: ObservedPolicy, transition: Transition) -> None:
        """An event on the policy."""
        ...

    def read_secret(self, namespace: str, name: str) -> Stored:
        """One Secret."""
        ...

    def create_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> Stored:
        """ApiConflict where there is one."""
        ...

    def patch_secret(self, namespace: str, name: str, data: Mapping[str, str], resource_version: str) -> Stored:
        """Set these keys and leave the others, if it is still at that version."""
        ...

    def read_config_map(self, namespace: str, name: str) -> Stored:
        """One ConfigMap."""
        ...

    def create_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> Stored:
        """ApiConflict where there is one."""
        ...

    def patch_config_map(
        self, namespace: str, name: str, data: Mapping[str, str | None], resource_version: str
    ) -> Stored:
        """Set these keys, remove those that are None and leave the others, if it is still at that version."""
        ...
