"""Between controller and sidecars: silence, lost replies, lies, and addresses that are none of a pod's.

Covers: faults 89, 90, 92 and 103 through the real API server; what a hostile sidecar may answer is tested where the
answer is read (tests/controller/test_transport.py: faults 90, 91).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.api_requests import ApiRefused
from cluster.controller_process import ControllerProcess
from cluster.credentials import TENANT_A
from cluster.fleet import Fleet
from cluster.installation import until
from cluster.test_api_server_faults import with_pods
from membudget_controller.settings import SIDECAR_PORT

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
POD_COUNT = 40
OTHERS_SECONDS = 5.0
NO_POD_S = ("127.0.0.1", "169.254.169.254", "::1", "fe80::1", "224.0.0.1")


@pytest.fixture
def black_hole(fleet: Fleet) -> Iterator[Callable[[str], None]]:
    """Packets to an address are dropped: no reset, no answer."""

    def drop(address: str) -> None:
        rule = ["iptables", "-I", "INPUT", "-p", "tcp", "-d", address, "--dport", str(SIDECAR_PORT), "-j", "DROP"]
        subprocess.run(fleet.control_plane.inside(rule), check=True)

    yield drop
    subprocess.run(fleet.control_plane.inside(["iptables", "-F", "INPUT"]), check=True)


def test_pods_that_swallow_packets_hold_up_no_other(
    fleet: Fleet, start_controller: Start, black_hole: Callable[[str], None], publish: Callable[[str], None]
) -> None:
    """R-P08, R-P10, fault 89: the others have the plan within 5 s, and the status counts who has."""
    with_pods(fleet, POD_COUNT)
    start_controller()
    fleet.wait_until_converged()
    silent = sorted(fleet.sidecars)[::10]
    for name in silent:
        black_hole(fleet.addresses[name])
    began = time.monotonic()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    (policy,) = fleet.policies()
    generation = policy["metadata"]["generation"]
    others = [sidecar for name, sidecar in fleet.sidecars.items() if name not in silent]
    until(lambda: all(one.held and one.held.policy and one.held.policy.generation == generation for one in others))
    seconds = time.monotonic() - began
    publish(f"{len(silent)} of {POD_COUNT} pods swallow packets: the others have their plan after {seconds:.2f} s")
    until(lambda: fleet.conditions("retrieval").get("Programmed") == ("False", "Unreachable"))
    until(lambda: counted(fleet) == (POD_COUNT, POD_COUNT - len(silent)))
    assert seconds < OTHERS_SECONDS


def test_an_order_whose_reply_is_lost_is_applied_once(fleet: Fleet, start_controller: Start) -> None:
    """R-P08, fault 90: repeated under its number until an answer comes through."""
    with_pods(fleet, 3)
    start_controller()
    fleet.wait_until_converged()
    taken = {name: len(sidecar.accepted) for name, sidecar in fleet.sidecars.items()}
    for sidecar in fleet.sidecars.values():
        sidecar.mode = "reply lost"
    fleet.apply("retrieval", budget={"total": "190Mi"})
    until(lambda: all(len(sidecar.orders) >= taken[name] + 2 for name, sidecar in fleet.sidecars.items()))
    for sidecar in fleet.sidecars.values():
        sidecar.mode = ""
    fleet.wait_until_converged()
    assert {name: len(sidecar.accepted) for name, sidecar in fleet.sidecars.items()} == {
        name: count + 1 for name, count in taken.items()
    }


def test_an_address_that_cannot_be_a_pods_is_never_dialled(fleet: Fleet, start_controller: Start) -> None:
    """R-P08, fault 92: whoever may write a pod's status cannot send the controller elsewhere; the others go on.

    The node's address on a pod of the host's network, two addresses, and none are told apart in
    tests/controller/test_targets.py: an API server alone lets nobody write them so.
    """
    with_pods(fleet, len(NO_POD_S) + 1)
    listening = [
        fleet.farm.add(fleet.sidecars[f"retriever-{number}"].pod, address) for number, address in enumerate(NO_POD_S)
    ]
    for number, address in enumerate(NO_POD_S):
        path = f"/api/v1/namespaces/{fleet.namespace}/pods/retriever-{number}/status"
        fleet.control_plane.api.send("PATCH", path, {"status": {"podIP": address, "podIPs": [{"ip": address}]}})
    start_controller()
    until(lambda: fleet.conditions("retrieval").get("Programmed") == ("False", "Unreachable"))
    until(lambda: counted(fleet) == (len(NO_POD_S) + 1, 1))
    assert [([], 0)] * len(NO_POD_S) == [(sidecar.bodies, sidecar.reports) for sidecar in listening]


def test_a_policy_reaches_no_pod_of_another_namespace(fleet: Fleet, start_controller: Start) -> None:
    """R-P01, fault 103: the same labels in two namespaces, a policy in one; a tenant without rights sees nothing."""
    other = "other-tenant"
    fleet.control_plane.create_namespace(other)
    neighbour = Fleet(fleet.control_plane, fleet.farm, other)
    neighbour.add_pod("retriever-0")
    with_pods(fleet, 2)
    start_controller()
    fleet.wait_until_converged()
    neighbour.wait_until_converged()
    assert [held.policy for held in neighbour.sidecars["retriever-0"].accepted] == [None]
    refused = fleet.control_plane.kubectl("get", "mempol", "-n", other, user=TENANT_A, check=False)
    assert (refused.returncode, "forbidden" in refused.stderr) == (1, True)
    with pytest.raises(ApiRefused):
        neighbour.conditions("retrieval")
    fleet.control_plane.remove_namespace(other)


def counted(fleet: Fleet) -> tuple[int, int]:
    """Pods that the one policy matches, and those that hold its plan, as its status says."""
    status = fleet.policies()[0].get("status", {})
    return status.get("matchedPods", 0), status.get("programmedPods", 0)
