"""The store is killed, away, put back to an earlier day, or holds what the API server would have refused.

Covers: faults 15 to 20, 22 and 36: etcd and the kind itself. A real API server, a real controller, fake sidecars.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from cluster.api_requests import ApiRefused
from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet
from cluster.installation import Installation, until
from cluster.test_api_server_faults import RETURN_SECONDS, with_pods

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
KIND = "crd/memorypolicies.membudget.dev"
SECONDS_TO_DELETE = 5.0


def test_what_was_acknowledged_before_etcd_was_killed_takes_effect(fleet: Fleet, start_controller: Start) -> None:
    """R-P08, fault 19: the last edit that the API server took, however many it refused after that."""
    with_pods(fleet, 3)
    start_controller()
    fleet.wait_until_converged()
    for total in range(200, 240):
        if total == 220:
            fleet.control_plane.etcd.kill()
            fleet.control_plane.etcd.start()
        try:
            fleet.apply("retrieval", budget={"total": f"{total}Mi"})
        except (ApiRefused, OSError):
            continue
    fleet.wait_until_converged(RETURN_SECONDS)
    fleet.check_it_stays(1.0)


@pytest.mark.parametrize("seconds", [3.0, pytest.param(300.0, marks=pytest.mark.soak)])
def test_etcd_frozen(fleet: Fleet, start_controller: Start, seconds: float) -> None:
    """R-P08, fault 20: every pod keeps its plan, and what is edited on its return is applied."""
    with_pods(fleet, 3)
    start_controller()
    fleet.wait_until_converged()
    held, orders = fleet.held(), fleet.orders()
    fleet.control_plane.etcd.freeze()
    time.sleep(seconds)
    assert (fleet.held(), fleet.orders()) == (held, orders)
    fleet.control_plane.etcd.thaw()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(RETURN_SECONDS)


@pytest.mark.parametrize("brisk", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_a_store_put_back_to_an_earlier_day_is_obeyed_once_under_a_new_epoch(
    fleet: Fleet, start_controller: Start, brisk: bool
) -> None:
    """R-P08, fault 22: the generation falls; an event tells, and nothing flaps."""
    with_pods(fleet, 3)
    start_controller(brisk=brisk)
    fleet.wait_until_converged()
    fleet.control_plane.back_up()
    for total in (190, 200):
        fleet.apply("retrieval", budget={"total": f"{total}Mi"})
        fleet.wait_until_converged()
    epochs = {sidecar.accepted[-1].number.epoch for sidecar in fleet.sidecars.values()}
    fleet.control_plane.roll_back()
    fleet.wait_until_converged(30.0)
    assert {policy["metadata"]["generation"] for policy in fleet.policies()} == {1}
    raised = {sidecar.accepted[-1].number.epoch for sidecar in fleet.sidecars.values()}
    assert (len(epochs), len(raised), min(raised) > max(epochs)) == (1, 1, True)
    told = fleet.control_plane.kubectl("get", "events", "-n", fleet.namespace, "-o", "json").stdout
    assert [event["reason"] for event in json.loads(told)["items"]].count("GenerationRestored") == 1
    orders = fleet.orders()
    time.sleep(2.0)
    assert fleet.orders() == orders


@pytest.mark.parametrize("known", [True, False])
def test_a_kind_that_comes_back_without_a_policy_is_watched(
    fleet: Fleet, start_controller: Start, installed: Installation, known: bool
) -> None:
    """Fault 15: whether or not the controller saw it go, and long before the next full list."""
    with_pods(fleet, 2)
    controller = start_controller()
    fleet.wait_until_converged()
    fleet.delete("retrieval")
    fleet.wait_until_converged()
    fleet.control_plane.kubectl("delete", KIND)
    if known:
        until(lambda: controller.counted("membudget_controller_policies_known ") == 0)
    installed.install()
    until(lambda: controller.counted("membudget_controller_policies_known ") == 1)
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)


def test_a_kind_that_is_deleted_and_comes_back_is_unknown_meanwhile(
    fleet: Fleet, start_controller: Start, installed: Installation
) -> None:
    """R-P13, fault 15: no pod falls back to its profile; what is applied later, under new uids, is accepted."""
    with_pods(fleet, 3)
    controller = start_controller()
    fleet.wait_until_converged()
    held, orders = fleet.held(), fleet.orders()
    fleet.control_plane.kubectl("delete", KIND)
    until(lambda: controller.counted("membudget_controller_policies_known ") == 0)
    time.sleep(3.0)
    assert (fleet.held(), fleet.orders()) == (held, orders)
    installed.install()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)


def test_a_policy_deleted_while_the_controller_is_down_is_gone_at_once(fleet: Fleet, start_controller: Start) -> None:
    """R-P13, fault 16: no finalizer waits for anybody; the next controller sends the profile."""
    with_pods(fleet, 3)
    start_controller().kill_when(fleet.has_converged)
    began = time.monotonic()
    fleet.control_plane.kubectl("delete", "mempol", "retrieval", "-n", fleet.namespace)
    assert (time.monotonic() - began < SECONDS_TO_DELETE, fleet.policies()) == (True, [])
    start_controller()
    fleet.wait_until_converged()
    assert {held[0] for held in fleet.held().values() if held} == {None}


def test_nothing_in_a_namespace_waits_for_the_controller_to_be_deleted(fleet: Fleet, start_controller: Start) -> None:
    """R-P13, fault 17: neither policy nor ConfigMap bears a finalizer or an owner that could hold it up."""
    with_pods(fleet, 1)
    start_controller().kill_when(fleet.has_converged)
    read = fleet.control_plane.kubectl("get", "mempol,configmap,pod", "-n", fleet.namespace, "-o", "json").stdout
    metadata = [item["metadata"] for item in json.loads(read)["items"]]
    holding = [one["name"] for one in metadata if one.get("finalizers") or one.get("ownerReferences")]
    assert (holding, len(metadata) >= 3) == ([], True)


def test_a_controller_that_starts_before_its_kind_waits_for_it(
    fleet: Fleet, start_controller: Start, installed: Installation
) -> None:
    """R-P08, fault 18: not ready, nothing pushed; then it works without a restart."""
    fleet.control_plane.kubectl("delete", KIND)
    fleet.add_pod("retriever-0")
    controller = start_controller(ready=False)
    until(lambda: _answers(controller))
    time.sleep(2.0)
    with pytest.raises(OSError, match="503"):
        controller.ask("/readyz")
    assert fleet.orders() == 0
    installed.install()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()


def test_a_policy_that_no_api_server_would_have_taken_harms_no_other(fleet: Fleet, start_controller: Start) -> None:
    """R-P10, faults 36 and 105: its conditions say what is wrong, its pods get their profile, and it heals."""
    fleet.add_pod("retriever-0")
    fleet.add_pod("other-0", app="other")
    fleet.apply("poisoned", budget={"total": "180Mi"})
    fleet.apply("healthy", selector={"matchLabels": {"app": "other"}}, budget={"total": "170Mi"})
    start_controller()
    fleet.wait_until_converged()
    _poison(fleet, {"budget": {"total": ["a", {"b": None}]}, "thresholds": 7})  # its status cannot be written either
    until(lambda: fleet.sidecars["retriever-0"].accepted[-1].policy is None)
    fleet.apply("healthy", selector={"matchLabels": {"app": "other"}}, budget={"total": "160Mi"})
    until(lambda: fleet.conditions("healthy").get("Programmed") == ("True", "Programmed"))
    _poison(fleet, {"budget": {"total": "1Zi"}, "thresholds": {}})
    until(lambda: fleet.conditions("poisoned").get("Accepted") == ("False", "Invalid"))
    fleet.delete("poisoned")
    fleet.apply("poisoned", budget={"total": "190Mi"})
    fleet.wait_until_converged()


def _poison(fleet: Fleet, spec: dict[str, Any]) -> None:
    """What no API server takes, as an older one or a careless restore may have left it in the store."""
    key = f"/registry/membudget.dev/memorypolicies/{fleet.namespace}/poisoned"
    good = json.loads(fleet.control_plane.etcd.read(key))
    metadata = {**good["metadata"], "generation": good["metadata"]["generation"] + 1}
    written = {**good, "metadata": metadata, "spec": {**good["spec"], **spec}}
    fleet.control_plane.etcd.write(key, json.dumps(written).encode())


def _answers(controller: ControllerProcess) -> bool:
    try:
        return bool(controller.ask("/healthz"))
    except OSError:
        return False
