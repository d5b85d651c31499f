"""The controller is killed at every step of its work, and its successor finishes it (faults 24 to 32).

Each run edits two policies, kills a real controller at the k-th pass of one place of its loop, changes something while
nobody looks, and starts a successor. Then every pod must hold what the policies that are there say, no sidecar may ever
have gone backward, and the converged system must be left alone. The usual run makes a tenth of what `make torture`
makes: MEMBUDGET_CRASH_RUNS is how often each place is gone through.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet
from membudget_controller.failpoints import Failpoint
from membudget_controller.settings import KEY_CONFIG_MAP

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

RUNS = int(os.environ.get("MEMBUDGET_CRASH_RUNS", "3"))
TORTURE = RUNS >= 10
QUIET_SECONDS = 3.0 if TORTURE else 0.5
"""Watched after each run of the torture; in the usual run, where coming to rest is most of the time, after the last."""
POD_COUNT = 5
SPECIAL = {"matchLabels": {"app": "retriever", "tier": "special"}}
MOST_PASSES = {
    Failpoint.INDEX_HALF_BUILT: 2,  # at the start, and when the watches begin
    Failpoint.AFTER_LIST: 2,
    Failpoint.BEFORE_PUSH: POD_COUNT,  # both policies were edited
    Failpoint.AFTER_PUSH: POD_COUNT,
    Failpoint.BEFORE_RECORD: POD_COUNT,
    Failpoint.BEFORE_STATUS_PATCH: 2,
    Failpoint.AFTER_STATUS_PATCH: 2,
}
"""How often a place is passed at least in every run; once where nothing is said."""


@pytest.mark.parametrize("place", Failpoint)
def test_whatever_a_killed_controller_was_doing_its_successor_finishes(
    fleet: Fleet, start_controller: Callable[..., ControllerProcess], place: Failpoint
) -> None:
    """R-P08, R-P10, R-P11, R-P13; faults 24 to 32."""
    chance = random.Random(place.value)  # the same runs each time
    for number in range(POD_COUNT):
        fleet.add_pod(f"retriever-{number}", tier="special" if number < 2 else "plain")
    for run in range(RUNS):
        fleet.apply("broad", budget={"total": f"{200 + run}Mi"})
        fleet.apply("special", selector=SPECIAL, precedence=10, budget={"total": f"{150 + run}Mi"})
        if place is Failpoint.BEFORE_KEY_PUBLICATION:
            _unpublish(fleet)
        crash = start_controller(ready=False, failpoint=f"{place}:{chance.randint(1, MOST_PASSES.get(place, 1))}")
        crash.wait_for_crash()
        chance.choice(MEANWHILE)(fleet)
        successor = start_controller(ready=False)
        fleet.wait_until_converged()
        fleet.check_history()
        if TORTURE or run == RUNS - 1:
            fleet.check_it_stays(QUIET_SECONDS)
        successor.kill()


def _nothing(_: Fleet) -> None:
    pass


def _edit(fleet: Fleet) -> None:
    fleet.apply("broad", budget={"total": "300Mi"})


def _delete(fleet: Fleet) -> None:
    fleet.delete("special")


def _make_anew(fleet: Fleet) -> None:
    """Another policy under the same name: its generation begins at 1 again."""
    fleet.delete("special")
    fleet.apply("special", selector=SPECIAL, precedence=10, budget={"total": "120Mi"})


def _replace_a_pod(fleet: Fleet) -> None:
    """As a Deployment does; the next one gets the address."""
    name = min(fleet.sidecars)
    address = fleet.remove_pod(name)
    fleet.add_pod(f"{name}-next", address=address, tier="special")


MEANWHILE = (_nothing, _edit, _delete, _make_anew, _replace_a_pod)


def _unpublish(fleet: Fleet) -> None:
    path = f"/api/v1/namespaces/{fleet.namespace}/configmaps"
    fleet.control_plane.api.send("DELETE", f"{path}?fieldSelector=metadata.name%3D{KEY_CONFIG_MAP}")
