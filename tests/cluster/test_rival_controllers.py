"""Two controllers at once, frozen ones, ones that are killed again and again or told to stop in the middle.

Covers: faults 32 to 35, 37, 39: fencing by epoch, and what a controller leaves half done. A real API server, real
controllers, fake sidecars.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable

import pytest

from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet
from cluster.test_api_server_faults import RETURN_SECONDS, with_pods
from membudget_controller.errors import SteppedDown

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
OTHER_PORT = 9467


@pytest.mark.parametrize("seconds", [1.0, pytest.param(300.0, marks=pytest.mark.soak)])
def test_of_two_controllers_the_later_one_stays(fleet: Fleet, start_controller: Start, seconds: float) -> None:
    """R-P08, fault 33: the earlier one hears of it from the first pod, says so and ends; nothing flaps."""
    with_pods(fleet, 5)
    first = start_controller()
    fleet.wait_until_converged()
    start_controller(port=OTHER_PORT)
    fleet.apply("retrieval", budget={"total": "190Mi"})
    assert first.process.wait(90.0) == SteppedDown.exit_code
    fleet.wait_until_converged()
    fleet.check_it_stays(seconds)
    plans = [held.plan_hash for held in fleet.sidecars["retriever-0"].accepted]
    assert len(list(itertools.groupby(plans))) == len(set(plans))


@pytest.mark.parametrize("seconds", [0.0, pytest.param(600.0, marks=pytest.mark.soak)])
def test_a_controller_frozen_while_another_took_over_changes_nothing(
    fleet: Fleet, start_controller: Start, seconds: float
) -> None:
    """R-P08, fault 34: it wakes with an old edit to push, and every pod refuses its epoch."""
    with_pods(fleet, 5)
    first = start_controller()
    fleet.wait_until_converged()
    first.freeze()
    start_controller(port=OTHER_PORT)
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()
    time.sleep(seconds)
    first.thaw()
    assert first.process.wait(90.0) == SteppedDown.exit_code
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)


@pytest.mark.parametrize("times", [6, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_again_and_again(fleet: Fleet, start_controller: Start, times: int) -> None:
    """R-P08, fault 32: at moments that nobody chose, with an edit before each."""
    chance = random.Random(32)
    with_pods(fleet, 5)
    for number in range(times):
        controller = start_controller(ready=False)
        fleet.apply("retrieval", budget={"total": f"{200 + number}Mi"})
        time.sleep(chance.uniform(0.5, 2.5))
        controller.kill()
    start_controller()
    fleet.wait_until_converged(RETURN_SECONDS)
    fleet.check_it_stays(1.0)


def test_told_to_stop_in_the_middle_of_a_fan_out(fleet: Fleet, start_controller: Start) -> None:
    """R-P08, fault 39: exit code 0 within 10 s with every second pod hanging, and its successor does the rest."""
    with_pods(fleet, 20)
    controller = start_controller()
    fleet.wait_until_converged()
    for sidecar in list(fleet.sidecars.values())[::2]:
        sidecar.mode = "hang"
    fleet.apply("retrieval", budget={"total": "190Mi"})
    while len(set(fleet.held().values())) == 1:
        time.sleep(0.01)
    assert controller.stop() == 0
    for sidecar in fleet.sidecars.values():
        sidecar.mode = ""
    start_controller()
    fleet.wait_until_converged(RETURN_SECONDS)
    fleet.check_it_stays(1.0)


def test_what_other_operators_write_is_nothing_to_this_one(fleet: Fleet, start_controller: Start) -> None:
    """Fault 35: kopf's peering of somebody else and its annotations on our objects neither pause nor confuse it."""
    fleet.control_plane.apply(PEERING)
    fleet.control_plane.kubectl("wait", "--for=condition=Established", "crd/clusterkopfpeerings.kopf.dev")
    fleet.control_plane.apply(PEER)
    with_pods(fleet, 2)
    path = f"/apis/membudget.dev/v1alpha1/namespaces/{fleet.namespace}/memorypolicies/retrieval"
    annotations = {"kopf.zalando.org/last-handled-configuration": "{}", "kopf.dev/progress": '{"retries": 9}'}
    fleet.control_plane.api.send("PATCH", path, {"metadata": {"annotations": annotations}})
    start_controller()
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)
    (policy,) = fleet.policies()
    assert policy["metadata"]["annotations"] == annotations
    fleet.control_plane.kubectl("delete", "crd/clusterkopfpeerings.kopf.dev")


@pytest.mark.parametrize(("pods", "rounds"), [(10, 20), pytest.param(200, 60, marks=pytest.mark.soak)])
def test_flapping_labels_are_coalesced(fleet: Fleet, start_controller: Start, pods: int, rounds: int) -> None:
    """R-P08, fault 37: however often a pod changes its mind, it is told once a second at most."""
    with_pods(fleet, pods)
    fleet.apply("special", selector={"matchLabels": {"tier": "special"}}, precedence=5, budget={"total": "120Mi"})
    start_controller()
    fleet.wait_until_converged()
    orders, began = fleet.orders(), time.monotonic()
    for number in range(rounds):
        for name in fleet.sidecars:
            fleet.label(name, tier="special" if number % 2 else "plain")
    seconds = time.monotonic() - began
    assert fleet.orders() - orders <= len(fleet.sidecars) * (seconds + 1)
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)


PEERING = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: clusterkopfpeerings.kopf.dev}
spec:
  scope: Cluster
  group: kopf.dev
  names: {kind: ClusterKopfPeering, plural: clusterkopfpeerings, singular: clusterkopfpeering}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
PEER = """
apiVersion: kopf.dev/v1
kind: ClusterKopfPeering
metadata: {name: default}
status: {somebody: {priority: 1000, lastseen: "2099-01-01T00:00:00", lifetime: 60}}
"""
