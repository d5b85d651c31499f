"""Fields of a policy are set, changed, unset, made invalid and set back, by a real user on a real API server.

Covers: faults 97 to 102, 104 and 105 and the way through: every field of the schema with a value that is taken and one
that is refused comes from the table that test_crd.py keeps complete. After each round every pod holds what the policies
say then: what the API server refused has changed nothing. MEMBUDGET_TRANSITIONS is how many there are in all.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cluster.api_requests import ApiRefused
from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet
from cluster.installation import CHART_FILES, Installation, until
from cluster.test_api_server_faults import with_pods
from cluster.test_crd import FIELDS, Field, spec_with

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(7200)]

Start = Callable[..., ControllerProcess]
TRANSITIONS = int(os.environ.get("MEMBUDGET_TRANSITIONS", "200"))
SIDE_BY_SIDE = 40
"""Policies, each with a pod of its own: a pod is told once a second."""
WALKED = [field for field in FIELDS if not field.path.startswith("selector.")]
"""The selector says whose pod it is."""


def test_fields_are_set_changed_unset_refused_and_set_back(
    fleet: Fleet, start_controller: Start, publish: Callable[[str], None]
) -> None:
    """R-P01, R-P08; faults 97, 98, 101, 105."""
    chance = random.Random(97)
    walks = [Walk(fleet, f"policy-{number}", chance) for number in range(SIDE_BY_SIDE)]
    start_controller()
    for _ in range(TRANSITIONS // SIDE_BY_SIDE):
        for walk in walks:
            walk.step()
        fleet.wait_until_converged()
    fleet.check_it_stays(1.0)
    refused = sum(walk.refused for walk in walks)
    publish(f"{TRANSITIONS} transitions of fields, of which the API server refused {refused}")
    assert refused > 0


class Walk:
    """One policy and its pod."""

    def __init__(self, fleet: Fleet, name: str, chance: random.Random) -> None:
        self._fleet = fleet
        self._name = name
        self._chance = chance
        self._field: Field | None = None
        self.refused = 0
        fleet.add_pod(f"pod-of-{name}", app=name)
        self._apply({})

    def step(self) -> None:
        """Set a field, make it invalid, leave it, change to another, or make the policy anew."""
        match self._chance.choice(["set", "invalid", "unset", "anew"]):
            case "set":
                self._field = self._chance.choice(WALKED)
                self._apply(spec_with(self._field.path, self._field.accepted))
            case "invalid":
                wrong = self._chance.choice(WALKED)
                with pytest.raises(ApiRefused):
                    self._apply(spec_with(wrong.path, wrong.refused))
                self.refused += 1
            case "unset":
                self._apply({})
            case _:
                self._fleet.delete(self._name)
                self._apply({} if self._field is None else spec_with(self._field.path, self._field.accepted))

    def _apply(self, spec: dict[str, Any]) -> None:
        self._fleet.apply(self._name, **{**spec, "selector": {"matchLabels": {"app": self._name}}})


@pytest.mark.parametrize("count", [0, 1, 25])
def test_a_selector_that_matches_none_one_or_many(fleet: Fleet, start_controller: Start, count: int) -> None:
    """R-P10, fault 99: matched and programmed are counted; none is no error."""
    with_pods(fleet, count)
    start_controller()
    fleet.wait_until_converged()
    status = fleet.policies()[0]["status"]
    assert (status["matchedPods"], status["programmedPods"]) == (count, count)


def test_edits_in_quick_succession_end_with_the_last(fleet: Fleet, start_controller: Start) -> None:
    """R-P08, fault 101: there and back, twice within 10 ms, deleted and made again under the same name."""
    with_pods(fleet, 3)
    start_controller()
    fleet.wait_until_converged()
    for total in ("150Mi", "180Mi", "150Mi", "180Mi"):
        fleet.apply("retrieval", budget={"total": total})
    fleet.wait_until_converged()
    fleet.delete("retrieval")
    fleet.apply("retrieval", budget={"total": "180Mi"})
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)


def test_what_users_do_to_status_and_finalizers(fleet: Fleet, start_controller: Start) -> None:
    """R-P10, R-P13, fault 102: a forged status is put right, a finalizer of somebody else is theirs to remove."""
    with_pods(fleet, 2)
    start_controller()
    fleet.wait_until_converged()
    path = f"/apis/membudget.dev/v1alpha1/namespaces/{fleet.namespace}/memorypolicies/retrieval"
    fleet.control_plane.api.send("PATCH", f"{path}/status", {"status": {"matchedPods": 99, "programmedPods": 99}})
    until(lambda: fleet.policies()[0]["status"]["matchedPods"] == 2)
    fleet.control_plane.api.send("PATCH", path, {"metadata": {"finalizers": ["example.com/held"]}})
    fleet.delete("retrieval")
    fleet.wait_until_converged()
    assert [policy["metadata"]["finalizers"] for policy in fleet.policies()] == [["example.com/held"]]
    fleet.control_plane.api.send("PATCH", path, {"metadata": {"finalizers": None}})
    fleet.wait_until_converged()
    assert ({held[0] for held in fleet.held().values() if held}, fleet.policies()) == ({None}, [])


def samplings(fleet: Fleet) -> list[bool]:
    """Of each policy, whether it says something of sampling."""
    return ["sampling" in policy["spec"] for policy in fleet.policies()]


def test_an_older_definition_after_a_rollback(fleet: Fleet, start_controller: Start, installed: Installation) -> None:
    """R-P01, fault 104: a field that it does not know is pruned when the policy is written, and all goes on."""
    with_pods(fleet, 2)
    fleet.apply("retrieval", budget={"total": "180Mi"}, sampling={"intervalSeconds": 5})
    start_controller()
    fleet.wait_until_converged()
    definition: dict[str, Any] = yaml.safe_load((CHART_FILES / "memorypolicies.membudget.dev.yaml").read_text())
    properties = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties["sampling"]
    fleet.control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(definition))
    until(lambda: [False] == samplings(fleet))  # for a moment after a change of the definition nothing is listed
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()
    installed.install()
    fleet.apply("retrieval", budget={"total": "190Mi"}, sampling={"intervalSeconds": 5})
    until(lambda: [True] == samplings(fleet))
    fleet.wait_until_converged()
