"""Recommendations on their whole way: report, controller, metrics, API server, `membudget recommend` (R-P14)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml

from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from cluster.credentials import CONTROLLER
from cluster.fleet import Fleet
from cluster.installation import Installation, until
from membudget_contract.quantities import MIB
from membudget_contract.recommend import PodNeed

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
OF_THE_CONTROLLER = {"app.kubernetes.io/name": "membudget", "app.kubernetes.io/component": "controller"}
ADDRESS = "10.244.200.1"


def test_from_the_reports_of_pods_to_a_persons_screen(
    fleet: Fleet, start_controller: Start, installed: Installation
) -> None:
    """R-P14, R-T03: as table, JSON and YAML, with exit codes; and nothing of it is written to the policy."""
    for name, working in (("a", 40), ("b", 70)):
        fleet.add_pod(f"retriever-{name}").need = PodNeed(
            seconds=7200.0,
            total_bytes=2 * working * MIB,
            components={"working": working * MIB},
            limit_bytes=2 * working * MIB + 20 * MIB,
        )
    fleet.add_pod("late-0", app="late").need = PodNeed(seconds=9.0, absent="seen for 9 s")
    fleet.apply("retrieval", budget={"total": "180Mi"})
    fleet.apply("late", selector={"matchLabels": {"app": "late"}}, budget={"total": "180Mi"})
    fleet.control_plane.create_pod(OWN_NAMESPACE, "controller-0", OF_THE_CONTROLLER, ADDRESS)
    controller = start_controller(brisk=True, arguments=["--host=0.0.0.0"])
    fleet.wait_until_converged()
    series = f'recommended_total_bytes{{namespace="{fleet.namespace}",policy="retrieval"}}'
    until(lambda: controller.counted(f"membudget_controller_{series}") == 140 * MIB)
    fleet.check_it_stays(0.0)
    mark = fleet.control_plane.mark()
    asked = "recommend", "retrieval", "-n", fleet.namespace
    code, table = installed.membudget(*asked)
    assert (code, "140.0 MiB" in table, "retriever-b needs most" in table) == (0, True, True)
    as_json = json.loads(installed.membudget(*asked, "-o", "json")[1])["policies"]
    assert as_json == yaml.safe_load(installed.membudget(*asked, "-o", "yaml")[1])["policies"]
    (told,) = as_json
    assert (told["totalBytes"], told["limitBytes"], told["components"]) == (
        140 * MIB,
        160 * MIB,
        {"working": 70 * MIB},
    )
    code, table = installed.membudget("recommend", "-n", fleet.namespace)
    assert (code, "late-0: seen for 9 s" in table) == (1, True)
    assert [write for write in fleet.control_plane.writes(mark) if write.user == CONTROLLER.name] == []
    fleet.control_plane.delete_pod(OWN_NAMESPACE, "controller-0")
    code, line = installed.membudget("recommend", "-n", fleet.namespace)
    assert (code, line) == (
        1,
        f"membudget: no controller runs in {OWN_NAMESPACE}; say where with --controller-namespace\n",
    )
