"""Pods with fake sidecars in one Kubernetes namespace, and what must hold of them whatever happened (O1 to O4).

Covers: making and removing pods and policies through the API server, what each pod should hold by the objects that are
there, and the oracles of the fault catalogue: every pod holds the plan of the policy that wins it or else its profile,
every policy says so, no sidecar ever went backward, and a converged system is left alone. What should be held is worked
out here from precedence and labels, not by the controller's own code.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster.api_requests import ApiRefused
from cluster.control_plane import ControlPlane
from cluster.credentials import CONTROLLER
from cluster.installation import until
from cluster.sidecar_farm import SidecarFarm
from controller.fake_sidecar import FakeSidecar
from membudget_contract.compile import compile_policy
from membudget_contract.orders import PodIdentity, PolicyIdentity
from membudget_contract.plan import plan_hash
from membudget_contract.policy import parse_policy

Held = tuple[PolicyIdentity | None, str]
CONVERGED_SECONDS = 60.0
LAST_EVENT_SECONDS = 1.2
"""More than events wait for each other where there are many: see `membudget_controller.write_budget`."""
_APPLY = {"Content-Type": "application/apply-patch+yaml"}
_addresses = itertools.count(10)


class Fleet:
    """Pods by name."""

    def __init__(self, control_plane: ControlPlane, farm: SidecarFarm, namespace: str) -> None:
        self.control_plane = control_plane
        self.namespace = namespace
        self.sidecars: dict[str, FakeSidecar] = {}
        self.addresses: dict[str, str] = {}
        self.farm = farm
        self._labels: dict[str, Mapping[str, str]] = {}
        self._all: list[FakeSidecar] = []

    def add_pod(self, name: str, *, address: str | None = None, **labels: str) -> FakeSidecar:
        """One that opts in, with `app: retriever`, at an address of its own unless one is given."""
        worn = {"app": "retriever", "membudget.dev/managed": "true", **labels}
        number = next(_addresses)
        chosen = address or f"10.244.{number // 250}.{number % 250 + 1}"
        uid = self.control_plane.create_pod(self.namespace, name, worn, chosen)
        sidecar = self.farm.add(PodIdentity(namespace=self.namespace, name=name, uid=uid), chosen)
        self.sidecars[name], self.addresses[name], self._labels[name] = sidecar, chosen, worn
        self._all.append(sidecar)
        return sidecar

    def remove_pod(self, name: str) -> str:
        """The object; its sidecar still listens, as a process does that has not heard yet. Its address."""
        self.control_plane.delete_pod(self.namespace, name)
        del self.sidecars[name], self._labels[name]
        return self.addresses.pop(name)

    def label(self, name: str, **labels: str) -> None:
        """Change labels of a pod."""
        worn = {**self._labels[name], **labels}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        self.control_plane.api.send("PATCH", path, {"metadata": {"labels": worn}})
        self._labels[name] = worn

    def apply(self, name: str, **spec: Any) -> None:
        """A policy for `app: retriever` unless the selector is given; what is not given is unset."""
        written = {"selector": {"matchLabels": {"app": "retriever"}}, **spec}
        document = {
            "apiVersion": "membudget.dev/v1alpha1",
            "kind": "MemoryPolicy",
            "metadata": {"name": name},
            "spec": written,
        }
        path = f"{self._path(name)}?fieldManager=user&force=true"
        self.control_plane.api.send("PATCH", path, document, headers=_APPLY)

    def delete(self, name: str) -> None:
        """A policy that is there."""
        self.control_plane.api.send("DELETE", self._path(name))

    def policies(self) -> list[dict[str, Any]]:
        """As the API server has them; none where the kind is not served."""
        try:
            return self.control_plane.api.send_json("GET", self._path(""))["items"]
        except ApiRefused:
            return []

    def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        """By type: status and reason, of the generation that is there now."""
        return _conditions(self.control_plane.api.send_json("GET", self._path(name)))

    def has_converged(self) -> bool:
        """Every pod holds what it should, and every policy says that it is so or why not."""
        policies = self.policies()
        desired = {name: self._desired(labels, policies) for name, labels in self._labels.items()}
        return self.held() == desired and all(_is_told(policy) for policy in policies)

    def held(self) -> dict[str, Held | None]:
        """By pod, what its sidecar took last."""
        return {
            name: (sidecar.held.policy, sidecar.held.plan_hash) if sidecar.held else None
            for name, sidecar in self.sidecars.items()
        }

    def orders(self) -> int:
        """That ever arrived and were verified, at pods that are gone too."""
        return sum(len(sidecar.bodies) for sidecar in self._all)

    def wait_until_converged(self, within: float = CONVERGED_SECONDS) -> None:
        """Else fail with what is still to do."""
        try:
            until(self.has_converged, within)
        except TimeoutError:
            policies = self.policies()
            desired = {name: self._desired(labels, policies) for name, labels in self._labels.items()}
            told = {policy["metadata"]["name"]: _conditions(policy) for policy in policies}
            raise AssertionError(f"held {self.held()}, desired {desired}, conditions {told}") from None

    def check_it_stays(self, seconds: float) -> None:
        """O4, and what was ever taken: no write, no order, and no sidecar that went backward."""
        self._settle()
        mark, orders = self.control_plane.mark(), self.orders()
        time.sleep(seconds)
        writes = [write for write in self.control_plane.writes(mark, events=True) if write.user == CONTROLLER.name]
        assert (writes, self.orders() - orders) == ([], 0)
        self.check_history()

    def check_history(self) -> None:
        """Numbers rise on every sidecar, and under one policy's uid the generation never falls."""
        for sidecar in self._all:
            numbers = [held.number for held in sidecar.accepted]
            assert numbers == sorted(set(numbers))
            newest: dict[str, int] = {}
            for policy in (held.policy for held in sidecar.accepted):
                if policy is not None:
                    assert policy.generation >= newest.get(policy.uid, 0), (sidecar.pod.name, sidecar.accepted)
                    newest[policy.uid] = policy.generation

    def _settle(self) -> None:
        """A converged policy may still await the report that makes it Ready, and the event that tells so."""
        until(lambda: all(_is_ready(policy) for policy in self.policies()))
        mark = None
        while mark != self.control_plane.mark():
            mark = self.control_plane.mark()
            time.sleep(LAST_EVENT_SECONDS)

    def _desired(self, labels: Mapping[str, str], policies: list[dict[str, Any]]) -> Held:
        selecting = [policy for policy in policies if _selects(policy, labels)]
        if not selecting:
            return None, plan_hash(compile_policy(None))
        winner = max(selecting, key=lambda policy: policy["spec"].get("precedence", 0))
        metadata = winner["metadata"]
        identity = PolicyIdentity(name=metadata["name"], uid=metadata["uid"], generation=metadata["generation"])
        named = {"name": metadata["name"], "namespace": metadata["namespace"]}
        return identity, plan_hash(compile_policy(parse_policy({**winner, "metadata": named})))

    def _path(self, name: str) -> str:
        return f"/apis/membudget.dev/v1alpha1/namespaces/{self.namespace}/memorypolicies/{name}".rstrip("/")


def _selects(policy: dict[str, Any], labels: Mapping[str, str]) -> bool:
    """By matchLabels, which is all that tests of a fleet use."""
    wanted: dict[str, str] = policy["spec"]["selector"]["matchLabels"]
    return wanted.items() <= labels.items()


def _conditions(policy: dict[str, Any]) -> dict[str, tuple[str, str]]:
    written = policy.get("status", {}).get("conditions", [])
    return {
        condition["type"]: (condition["status"], condition["reason"])
        for condition in written
        if condition["observedGeneration"] == policy["metadata"]["generation"]
    }


def _is_told(policy: dict[str, Any]) -> bool:
    return _conditions(policy).get("Programmed") in {("True", "Programmed"), ("Unknown", "NoPods")}


def _is_ready(policy: dict[str, Any]) -> bool:
    return _conditions(policy).get("Ready") in {("True", "UnderBudget"), ("Unknown", "NoPods")}


def never(condition: Callable[[], bool], seconds: float) -> None:
    """Watch for so long that it does not come true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert not condition()
        time.sleep(0.05)
