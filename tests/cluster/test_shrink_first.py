"""Shrink first against a real API server: the subresource `resize`, its rights, and the order of a limit and a plan.

Covers: what the controller patches and when, that without the right it says so, and growth. Sidecars are fakes that
report what a test says, and the test writes what a kubelet would. Neighbour: tests/node/test_shrink_first.py has both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from cluster.credentials import CONTROLLER
from cluster.fleet import Fleet, never
from cluster.installation import CHART_FILES, until
from cluster.pod_objects import NODE, PodObject
from controller.fake_sidecar import FakeSidecar
from membudget_contract.orders import PodIdentity
from membudget_contract.quantities import MIB, parse_quantity

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
RULES = CHART_FILES / "controller-resize-rules.yaml"
LABELS = {"app": "retriever", "membudget.dev/managed": "true"}
NODE_MEMORY = "400Mi"
WITHIN_SECONDS = 45.0
"""A refused resize is tried again after 30 s."""
STILL_SECONDS = 6.0
"""The controller asks a pod that gives bytes back every 2 s."""


@pytest.fixture(autouse=True)
def node(fleet: Fleet) -> Iterator[None]:
    """The object that pods are bound to: a resize is admitted only where the API server knows it."""
    fleet.control_plane.api.send("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
    capacity = {"memory": NODE_MEMORY, "cpu": "2", "pods": "110"}
    status = {"status": {"capacity": capacity, "allocatable": capacity}}
    fleet.control_plane.api.send("PATCH", f"/api/v1/nodes/{NODE}/status", status)
    yield
    fleet.control_plane.api.send("DELETE", f"/api/v1/nodes/{NODE}")


class Engine:
    """One pod whose engine has a memory limit; the test is its kubelet."""

    def __init__(self, fleet: Fleet, limit: str) -> None:
        self._fleet = fleet
        self._pod = PodObject(fleet.namespace, "retriever-0", LABELS, "10.244.3.7", memory_limit=limit)
        uid = fleet.control_plane.create_pod(self._pod.namespace, self._pod.name, LABELS, self._pod.pod_ip, None, limit)
        self.kubelet_sets(limit)
        identity = PodIdentity(namespace=fleet.namespace, name=self._pod.name, uid=uid)
        self.sidecar: FakeSidecar = fleet.farm.add(identity, self._pod.pod_ip)

    @property
    def asked(self) -> tuple[str, str]:
        """Limit and request in the pod's spec."""
        pod = self._fleet.control_plane.api.send_json("GET", self._path)
        resources = pod["spec"]["containers"][0]["resources"]
        return resources["limits"]["memory"], resources["requests"]["memory"]

    @property
    def total(self) -> int | None:
        """Of the plan that it holds, in bytes."""
        return parse_quantity(self.sidecar.held.plan.total) if self.sidecar.held else None

    @property
    def soft_percent(self) -> int | None:
        """Where the ladder begins in the plan that it holds."""
        return self.sidecar.held.plan.thresholds.soft.percent if self.sidecar.held else None

    def kubelet_sets(self, limit: str) -> None:
        """What the kernel holds the container to, as the pod's status says it."""
        status = self._pod.running()
        status["status"]["containerStatuses"][0]["resources"] = {"limits": {"memory": limit}}
        self._fleet.control_plane.api.send("PATCH", f"{self._path}/status", status)

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._pod.namespace}/pods/{self._pod.name}"


def grant(fleet: Fleet) -> None:
    """The chart's rules for it, in the fleet's namespace."""
    metadata = {"name": "membudget-controller-resize", "namespace": fleet.namespace}
    role = {"kind": "Role", "metadata": metadata, "rules": yaml.safe_load(RULES.read_text())}
    binding = {
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "membudget-controller", "namespace": OWN_NAMESPACE}],
    }
    for one in (role, binding):
        fleet.control_plane.apply(json.dumps({"apiVersion": "rbac.authorization.k8s.io/v1", **one}))


def resized(fleet: Fleet) -> tuple[str, str]:
    """Status and reason of the condition."""
    return fleet.conditions("retrieval").get("Resized", ("", ""))


def apply(fleet: Fleet, limit: str) -> None:
    """A total of 75 % of that limit."""
    fleet.apply("retrieval", budget={"total": "75%"}, resize={"mode": "ShrinkFirst", "limit": limit})


def test_a_pod_is_resized_after_it_reports_that_it_fits_and_never_before(fleet: Fleet, start_controller: Start) -> None:
    """Goal 1, R-P10: through a real patch of `resize`, the request with the limit, and once only."""
    engine = Engine(fleet, "200Mi")
    engine.sidecar.usage, engine.sidecar.budget = 150 * MIB, 90 * MIB
    grant(fleet)
    mark = fleet.control_plane.mark()
    start_controller()
    apply(fleet, "120Mi")
    until(lambda: resized(fleet) == ("False", "GivingBack") and "uses 150.0 MiB of the 90.0 MiB" in _message(fleet))
    never(lambda: engine.asked != ("200Mi", "200Mi"), STILL_SECONDS)
    assert 90 * MIB == engine.total
    engine.sidecar.usage = 80 * MIB
    until(lambda: engine.asked == ("120Mi", "120Mi") and resized(fleet) == ("False", "Resizing"))
    engine.kubelet_sets("120Mi")
    until(lambda: resized(fleet) == ("True", "Resized"))
    writes = [write for write in fleet.control_plane.writes(mark) if write.user == CONTROLLER.name]
    assert [("patch", 200)] == [(each.verb, each.status) for each in writes if each.resource == "pods/resize"]
    assert not [each for each in writes if each.resource == "pods"]


def test_going_up_the_limit_comes_first(fleet: Fleet, start_controller: Start) -> None:
    """No budget that the present limit does not carry is sent; the pod keeps its own until the kubelet is done."""
    engine = Engine(fleet, "100Mi")
    engine.sidecar.usage, engine.sidecar.budget = 50 * MIB, 60 * MIB
    grant(fleet)
    start_controller()
    fleet.apply("retrieval", budget={"total": "60Mi"})
    until(lambda: engine.total == 60 * MIB)
    apply(fleet, "160Mi")
    until(lambda: engine.asked == ("160Mi", "160Mi"))
    never(lambda: engine.total != 60 * MIB, STILL_SECONDS / 2)
    engine.kubelet_sets("160Mi")
    until(lambda: engine.total == 120 * MIB and resized(fleet) == ("True", "Resized"))


def test_without_the_right_it_says_so_and_with_it_goes_on(fleet: Fleet, start_controller: Start) -> None:
    """Opt-in: the rights that every installation has do not resize anything."""
    engine = Engine(fleet, "200Mi")
    engine.sidecar.usage, engine.sidecar.budget = 80 * MIB, 90 * MIB
    start_controller()
    apply(fleet, "120Mi")
    until(lambda: resized(fleet) == ("False", "ResizeRefused") and "controller.resizePods=true" in _message(fleet))
    assert ("200Mi", "200Mi") == engine.asked
    grant(fleet)
    until(lambda: engine.asked == ("120Mi", "120Mi"), WITHIN_SECONDS)


def test_a_node_without_room_is_told_in_the_api_servers_words(fleet: Fleet, start_controller: Start) -> None:
    """R-P08, R-P10: a growth that no node of this size can grant; limit and budget stay, other edits arrive."""
    engine = Engine(fleet, "200Mi")
    engine.sidecar.usage, engine.sidecar.budget = 50 * MIB, 150 * MIB
    grant(fleet)
    start_controller()
    fleet.apply("retrieval", budget={"total": "150Mi"})
    until(lambda: engine.total == 150 * MIB)
    apply(fleet, "500Mi")
    until(lambda: resized(fleet) == ("False", "ResizeRefused") and "enough allocatable" in _message(fleet))
    assert (("200Mi", "200Mi"), 150 * MIB) == (engine.asked, engine.total)
    soft = {"soft": {"percent": 70, "releasePercent": 60}}
    fleet.apply("retrieval", budget={"total": "75%"}, resize={"mode": "ShrinkFirst", "limit": "500Mi"}, thresholds=soft)
    until(lambda: engine.soft_percent == 70)
    until(lambda: fleet.conditions("retrieval").get("Programmed") == ("False", "Pushing"))
    assert 150 * MIB == engine.total


def _message(fleet: Fleet) -> str:
    (policy,) = fleet.policies()
    conditions: list[dict[str, Any]] = policy["status"]["conditions"]
    return next(each["message"] for each in conditions if each["type"] == "Resized")
