"""What the controller may do, asked of a real API server, and that it needs no more than that.

Covers: the rights in the chart against a recorded review (least RBAC), and a controller with Roles in single namespaces
and no ClusterRole at all, which may not even see the definition of its own kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from cluster.credentials import CONTROLLER
from cluster.fleet import Fleet
from cluster.installation import CHART_FILES, Installation, until
from cluster.test_api_server_faults import with_pods
from membudget_controller.listing import BLIND_LIST_SECONDS, CONFIRM_SECONDS

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
RECORDED = Path(__file__).with_name("controller_rights.json")
RULES = CHART_FILES / "controller-rules.yaml"
KIND = "crd/memorypolicies.membudget.dev"
OF_EVERYBODY = {"authorization.k8s.io", "authentication.k8s.io"}
"""Reviews of one's own rights, which every user has."""


@pytest.fixture
def in_one_namespace(installed: Installation, fleet: Fleet) -> Iterator[Fleet]:
    """The chart's rules as a Role in the fleet's namespace, and nothing for the whole cluster."""
    fleet.control_plane.kubectl("delete", "clusterrolebinding/membudget-controller")
    metadata = {"name": "membudget-controller", "namespace": fleet.namespace}
    role = {"kind": "Role", "metadata": metadata, "rules": yaml.safe_load(RULES.read_text())}
    binding = {
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "membudget-controller"},
        "subjects": [{"kind": "ServiceAccount", "name": "membudget-controller", "namespace": OWN_NAMESPACE}],
    }
    for one in (role, binding):
        fleet.control_plane.apply(json.dumps({"apiVersion": "rbac.authorization.k8s.io/v1", **one}))
    yield fleet
    installed.install()


def rights(fleet: Fleet, namespace: str) -> list[dict[str, Any]]:
    """What the controller's user may do there, as the API server says to that user."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    create = ("create", "--validate=false", "-o", "json", "-f", "-")  # the client would want rights of its own
    asked = fleet.control_plane.kubectl(*create, stdin=json.dumps(review), user=CONTROLLER)
    rules: list[dict[str, Any]] = json.loads(asked.stdout)["status"]["resourceRules"]
    own = [rule for rule in rules if not OF_EVERYBODY & set(rule["apiGroups"])]
    return sorted(own, key=lambda rule: json.dumps(rule, sort_keys=True))


def test_the_controller_may_do_what_is_recorded_and_nothing_else(fleet: Fleet) -> None:
    """R-P08: a right more or less is a change of this file, which a person reads."""
    recorded = json.loads(RECORDED.read_text())
    assert {"own namespace": rights(fleet, OWN_NAMESPACE), "any namespace": rights(fleet, fleet.namespace)} == recorded


def test_rights_in_single_namespaces_suffice(in_one_namespace: Fleet, start_controller: Start) -> None:
    """R-P01, R-P08, R-P13: from apply to Programmed, an edit, and a deletion that is believed some seconds later."""
    fleet = with_pods(in_one_namespace, 2)
    start_controller(arguments=[f"--watch={fleet.namespace}"])
    fleet.wait_until_converged()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(10.0)
    fleet.check_it_stays(1.0)
    fleet.delete("retrieval")
    fleet.wait_until_converged(CONFIRM_SECONDS + 10.0)


def test_a_kind_that_ends_unseen_takes_no_pod_its_plan(
    in_one_namespace: Fleet, start_controller: Start, installed: Installation
) -> None:
    """Fault 15, without the right to see the definition: nothing is pushed; new policies are found when it is back."""
    fleet = with_pods(in_one_namespace, 2)
    controller = start_controller(arguments=[f"--watch={fleet.namespace}"])
    fleet.wait_until_converged()
    held, orders = fleet.held(), fleet.orders()
    fleet.control_plane.kubectl("delete", KIND)
    until(lambda: controller.counted("membudget_controller_policies_known ") == 0)
    until(lambda: _log_says(controller, "is not served"))
    assert (fleet.held(), fleet.orders()) == (held, orders)
    installed.install_definition()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(BLIND_LIST_SECONDS + CONFIRM_SECONDS + 20.0)


def _log_says(controller: ControllerProcess, words: str) -> bool:
    return words in controller.log.read_text(errors="replace")
