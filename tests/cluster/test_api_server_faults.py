"""The API server is killed, frozen, wrong, slow or forbidding; afterwards everything is as the policies say.

Covers: faults 1, 2, 4, 5, 7 to 10 and 14, with a real API server, a real controller and fake sidecars. Between the two
stands a proxy where answers are to be wrong. The times of the catalogue are shortened; the full freeze is a soak test.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.api_proxy import ApiProxy, Fault
from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet
from cluster.installation import Installation, until
from membudget_contract.orders import PodIdentity
from membudget_controller.status_writer import WRITE_PAUSE_SECONDS

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
RETURN_SECONDS = 10.0
"""From the end of a fault to the converged state."""
CLOCK_SECONDS = 0.2
"""The proxy takes the time when a request arrives, the controller before it sends it."""
RETRY_AFTER = 6
"""Seconds; longer than the controller's own pause after a failure."""


@pytest.fixture
def proxy(installed: Installation, tmp_path: Path) -> Iterator[ApiProxy]:
    """Between controllers that are given its kubeconfig and the API server."""
    with ApiProxy(installed.control_plane, tmp_path) as between:
        yield between


def with_pods(fleet: Fleet, count: int) -> Fleet:
    """So many retrievers and one policy."""
    for number in range(count):
        fleet.add_pod(f"retriever-{number}")
    fleet.apply("retrieval", budget={"total": "180Mi"})
    return fleet


@pytest.mark.parametrize("seconds", [2.0, pytest.param(30.0, marks=pytest.mark.soak)])
def test_killed_under_ten_edits_a_second(fleet: Fleet, start_controller: Start, seconds: float) -> None:
    """R-P08, fault 1: what was missed is applied within 10 s of its return."""
    with_pods(fleet, 3)
    start_controller()
    fleet.wait_until_converged()
    for total in range(200, 210):
        fleet.apply("retrieval", budget={"total": f"{total}Mi"})
        time.sleep(0.1)
    fleet.control_plane.kill_api_server()
    time.sleep(seconds)
    fleet.control_plane.start_api_server()
    for total in range(210, 220):
        fleet.apply("retrieval", budget={"total": f"{total}Mi"})
        time.sleep(0.1)
    fleet.wait_until_converged(RETURN_SECONDS)
    fleet.check_it_stays(1.0)


@pytest.mark.parametrize("seconds", [4.0, pytest.param(120.0, marks=pytest.mark.soak)])
def test_frozen_with_its_connections_open(fleet: Fleet, start_controller: Start, seconds: float) -> None:
    """R-P08, fault 2: nobody is pushed anything, the age of the watch tells, and after the thaw the edit arrives."""
    with_pods(fleet, 3)
    controller = start_controller()
    fleet.wait_until_converged()
    orders = fleet.orders()
    fleet.control_plane.freeze_api_server()
    time.sleep(seconds)
    age = controller.counted("membudget_controller_watch_age_seconds")
    assert (fleet.orders(), age >= seconds) == (orders, True)
    fleet.control_plane.thaw_api_server()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(RETURN_SECONDS)


def test_after_410_gone_deleted_pods_are_forgotten_and_their_addresses_belong_to_others(
    fleet: Fleet, start_controller: Start
) -> None:
    """R-P08, faults 4 and 5: the watch is too old to go on; another tenant's pod has the address of one of ours."""
    with_pods(fleet, 20)
    controller = start_controller()
    fleet.wait_until_converged()
    controller.freeze()
    fleet.control_plane.kill_api_server()  # or what follows would lie in the sockets of its watches, and be no gap
    fleet.control_plane.start_api_server()
    gone = {name: fleet.sidecars[name] for name in list(fleet.sidecars)[:15]}
    addresses = [fleet.remove_pod(name) for name in gone]
    other = "another-tenant"
    fleet.control_plane.create_namespace(other)
    neighbour = Fleet(fleet.control_plane, fleet.farm, other)
    stranger = neighbour.add_pod("retriever-0", address=addresses[0])
    orders = {name: len(sidecar.bodies) for name, sidecar in gone.items()}
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.control_plane.kill_api_server()
    fleet.control_plane.etcd.compact()
    fleet.control_plane.start_api_server()
    controller.thaw()
    fleet.wait_until_converged(RETURN_SECONDS)
    neighbour.wait_until_converged()
    assert controller.counted("membudget_controller_pods ") == len(fleet.sidecars) + 1
    assert {name: len(sidecar.bodies) for name, sidecar in gone.items()} == orders
    assert [held.policy for held in stranger.accepted] == [None]
    fleet.control_plane.remove_namespace(other)


def test_an_order_for_a_pod_whose_address_has_passed_on_is_refused_there(fleet: Fleet, start_controller: Start) -> None:
    """R-P08, fault 5: before the API server tells of the change the wrong pod is dialled, and it takes nothing."""
    with_pods(fleet, 2)
    controller = start_controller()
    fleet.wait_until_converged()
    stranger = fleet.farm.add(
        PodIdentity(namespace=fleet.namespace, name="stranger", uid="its-own"), fleet.addresses["retriever-0"]
    )
    fleet.apply("retrieval", budget={"total": "190Mi"})
    until(lambda: fleet.conditions("retrieval").get("Programmed") == ("False", "Refused"))
    assert (stranger.accepted, controller.counted('membudget_controller_pushes_total{result="Refused"}') >= 1) == (
        [],
        True,
    )


def test_a_tenth_of_all_answers_wrong_or_cut(fleet: Fleet, start_controller: Start, proxy: ApiProxy) -> None:
    """R-P08, R-P10, fault 7: retried until it is done, and nothing takes effect twice on a sidecar."""
    chance, lock = random.Random(7), threading.Lock()
    kinds = [Fault(status=500), Fault(status=503), Fault(status=504), Fault(cut=True)]

    def faulty(_: str, __: str) -> Fault | None:
        with lock:
            return chance.choice(kinds) if chance.random() < 0.1 else None

    proxy.faults = faulty
    with_pods(fleet, 3)
    start_controller(kubeconfig=proxy.kubeconfig)
    for total in (190, 200):
        fleet.apply("retrieval", budget={"total": f"{total}Mi"})
        fleet.wait_until_converged()
    proxy.faults = lambda _, __: None
    fleet.check_it_stays(1.0)


def test_a_watch_that_breaks_off_while_it_looks_for_kinds_begins_anew(
    fleet: Fleet, start_controller: Start, proxy: ApiProxy
) -> None:
    """R-P08, fault 7: kopf ends with such an answer; the process, its epoch and what pods hold stay."""
    cut: list[str] = []

    def cut_first(_: str, path: str) -> Fault | None:
        if cut or path != "/apis/membudget.dev/v1alpha1":
            return None
        cut.append(path)
        return Fault(cut=True)

    proxy.faults = cut_first
    with_pods(fleet, 2)
    controller = start_controller(kubeconfig=proxy.kubeconfig)
    fleet.wait_until_converged()
    until(lambda: "begins anew" in controller.log.read_text())
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(2 * RETURN_SECONDS)
    assert (len(cut), controller.process.poll()) == (1, None)


def test_retry_after_is_honoured(fleet: Fleet, start_controller: Start, proxy: ApiProxy) -> None:
    """R-P08, fault 8: an API server that is overloaded is left alone for as long as it asks for."""
    with_pods(fleet, 2)
    start_controller(kubeconfig=proxy.kubeconfig)
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)
    proxy.requests.clear()
    proxy.faults = lambda method, path: (
        Fault(status=429, headers={"Retry-After": str(RETRY_AFTER)})
        if (method, path.endswith("/status")) == ("PATCH", True)
        else None
    )
    fleet.apply("retrieval", budget={"total": "190Mi"})

    def patched_at() -> list[float]:
        return [at for at, method, path in list(proxy.requests) if (method, path[-7:]) == ("PATCH", "/status")]

    until(lambda: len(patched_at()) >= 2)
    pauses = [after - before for before, after in itertools.pairwise(patched_at())]
    proxy.faults = lambda _, __: None
    assert min(pauses) >= RETRY_AFTER - CLOCK_SECONDS
    fleet.wait_until_converged(RETURN_SECONDS)


def test_a_storm_of_other_writers(fleet: Fleet, start_controller: Start) -> None:
    """R-P10, fault 9: fifty writes a second on the policy; the status is right 5 s after, pushes are none."""
    with_pods(fleet, 2)
    start_controller()
    fleet.wait_until_converged()
    orders = fleet.orders()
    path = f"/apis/membudget.dev/v1alpha1/namespaces/{fleet.namespace}/memorypolicies/retrieval"
    for number in range(150):
        fleet.control_plane.api.send("PATCH", path, {"metadata": {"annotations": {"writer": str(number)}}})
        time.sleep(0.02)
    assert fleet.orders() == orders
    fleet.apply("retrieval", budget={"total": "190Mi"})
    for number in range(100):
        fleet.control_plane.api.send("PATCH", path, {"metadata": {"annotations": {"writer": str(number)}}})
        time.sleep(0.02)
    fleet.wait_until_converged(5.0 + WRITE_PAUSE_SECONDS)


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_rights_taken_away_and_given_back(
    fleet: Fleet, start_controller: Start, installed: Installation, seconds: float
) -> None:
    """R-P08, fault 10: known plans are kept, an edit made meanwhile is applied once the rights are back."""
    with_pods(fleet, 2)
    controller = start_controller()
    fleet.wait_until_converged()
    binding = "clusterrolebinding/membudget-controller"
    fleet.control_plane.kubectl("delete", binding)
    # An open watch outlives the rights it began with: the kubelet's restart of the controller is what shows it.
    controller.kill()
    without = start_controller(ready=False)
    fleet.apply("retrieval", budget={"total": "190Mi"})
    until(lambda: "403" in without.log.read_text(errors="replace"))
    time.sleep(seconds)
    with pytest.raises(OSError, match="503"):
        without.ask("/readyz")
    installed.install()
    fleet.wait_until_converged(30.0)


@pytest.mark.parametrize("seconds", [0.3, pytest.param(2.0, marks=pytest.mark.soak)])
def test_every_call_delayed(fleet: Fleet, start_controller: Start, proxy: ApiProxy, seconds: float) -> None:
    """R-P08, fault 14: slow is not wrong; nothing is asked again before it was answered."""
    proxy.faults = lambda _, __: Fault(delay_seconds=seconds)
    with_pods(fleet, 3)
    start_controller(kubeconfig=proxy.kubeconfig)
    fleet.wait_until_converged()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()
    fleet.check_it_stays(4 * seconds)
