"""From `kubectl apply` to Programmed for 1 to 5,000 pods, and what it costs: CPU of each process, memory, API writes.

Usage: controller_scale.py [PODS ...]; 1, 100 and 1,000 without a word. A real kube-apiserver and etcd, the real
controller as a process of its own, real Pod objects; the sidecars are fake ones in this process, one listener at all
pod addresses (AnyIP), which verify each order's signature. Needs what the cluster tests need: root, and the binaries.

A time is from the moment the edit is sent to the moment a watch shows condition Programmed of its generation. The
machine runs all of it, so the CPU of each process says where the time went. Cold start is from the controller's fork
to its first report of the whole fleet. Apart are measured: what 10,000 pods without the label cost the controller
(controller_scale.py unlabelled), and its memory and writes with 500 policies over 5,000 pods, from a cold start in
which every pod and every status is new (controller_scale.py fleet [PODS POLICIES]).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cluster.control_plane import ControlPlane
from cluster.controller_process import ControllerProcess
from cluster.credentials import CONTROLLER
from cluster.fleet import Fleet
from cluster.installation import Installation, until
from cluster.sidecar_farm import SidecarFarm
from measuring import MIB, resident_bytes, table

SIZES = (1, 100, 1000)
EDITS = {1: 20, 100: 15, 1000: 8, 5000: 4}
PAUSE_SECONDS = 2.5
"""Between two edits, so that each finds a converged system: a pod is asked how it is 2 s after an order."""
MAKERS = 4
UNLABELLED = 10_000
FLEET = (5_000, 500)
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """One size."""

    pods: int
    seconds: list[float]
    cold_start: float
    cpu: dict[str, float]
    """Seconds by process, over all edits and pauses."""
    wall: float
    resident: int
    writes: int

    def row(self) -> list[object]:
        """For the table; with fewer than 100 edits the worst stands for the p99."""
        shares = [f"{100 * self.cpu[name] / self.wall:.0f}" for name in ("controller", "apiserver", "etcd", "sidecars")]
        return [
            self.pods,
            len(self.seconds),
            statistics.median(self.seconds),
            max(self.seconds),
            self.cold_start,
            " / ".join(shares),
            self.resident / MIB,
            self.writes / self.wall,
        ]


@contextmanager
def cluster() -> Generator[tuple[Installation, Path]]:
    """A control plane with membudget installed, and a folder for logs."""
    with tempfile.TemporaryDirectory() as name, ControlPlane(Path(name)) as control_plane:
        installed = Installation(control_plane, Path(name))
        installed.install()
        yield installed, Path(name)


def measure(pods: int) -> Run:
    """A cluster of its own for each size."""
    with cluster() as (installed, folder), SidecarFarm(installed.control_plane) as farm:
        installed.control_plane.create_namespace("scale")
        fleet = Fleet(installed.control_plane, farm, "scale")
        with ThreadPoolExecutor(MAKERS) as makers:
            list(makers.map(fleet.add_pod, [f"retriever-{number}" for number in range(pods)]))
        fleet.apply("retrieval", budget={"total": "150Mi"})
        began = time.monotonic()
        controller = ControllerProcess(installed.control_plane, folder / "controller.log")
        until(lambda: _is_programmed(fleet), 120.0)
        cold_start = time.monotonic() - began
        etcd, api_server = installed.control_plane.process_ids()
        pids = {"controller": controller.process.pid, "apiserver": api_server, "etcd": etcd, "sidecars": os.getpid()}
        time.sleep(PAUSE_SECONDS)
        before, mark, began = _cpu(pids), installed.control_plane.mark(), time.monotonic()
        seconds = [_edit(fleet, 200 + number) for number in range(EDITS.get(pods, 10))]
        wall = time.monotonic() - began
        after = _cpu(pids)
        writes = [write for write in installed.control_plane.writes(mark, events=True) if write.user == CONTROLLER.name]
        run = Run(
            pods=pods,
            seconds=seconds,
            cold_start=cold_start,
            cpu={name: after[name] - before[name] for name in pids},
            wall=wall,
            resident=resident_bytes(controller.process.pid),
            writes=len(writes),
        )
        controller.kill()
        return run


def measure_fleet(pods: int, policies: int) -> list[object]:
    """Seconds until every pod holds its plan and every status says so; CPU, memory, writes in the worst second."""
    with cluster() as (installed, folder), SidecarFarm(installed.control_plane) as farm:
        installed.control_plane.create_namespace("fleet")
        fleet = Fleet(installed.control_plane, farm, "fleet")

        def add(number: int) -> None:
            fleet.add_pod(f"retriever-{number}", app=f"app-{number % policies}")

        with ThreadPoolExecutor(MAKERS) as makers:
            list(makers.map(add, range(pods)))
        for number in range(policies):
            fleet.apply(
                f"policy-{number}", selector={"matchLabels": {"app": f"app-{number}"}}, budget={"total": "150Mi"}
            )
        mark, began = installed.control_plane.mark(), time.monotonic()
        controller = ControllerProcess(installed.control_plane, folder / "controller.log")
        until(lambda: all(sidecar.held is not None for sidecar in fleet.sidecars.values()), 300.0)
        held = time.monotonic() - began
        while not all(_says_programmed(one, one["metadata"]["generation"]) for one in fleet.policies()):
            time.sleep(1.0)
        told = time.monotonic() - began
        _settle(installed)
        resident, spent = resident_bytes(controller.process.pid), _cpu_of(controller.process.pid)
        at = sorted(when for when, user in installed.control_plane.write_times(mark) if user == CONTROLLER.name)
        worst = max(sum(since <= one < since + 1.0 for one in at) for since in at)
        controller.kill()
        return [pods, policies, held, told, spent, resident / MIB, len(at), worst]


def _settle(installed: Installation) -> None:
    """Until nothing was written for some seconds."""
    mark = None
    while mark != installed.control_plane.mark():
        mark = installed.control_plane.mark()
        time.sleep(PAUSE_SECONDS)


def measure_unlabelled() -> tuple[int, int]:
    """Resident bytes of the controller without and with 10,000 pods that do not opt in, freshly started each time."""
    with cluster() as (installed, folder):
        installed.control_plane.create_namespace("crowd")
        without = _resident_when_ready(installed, folder)
        padding = {f"example.com/padding-{number}": "x" * 900 for number in range(30)}
        with ThreadPoolExecutor(MAKERS) as makers:
            names = [f"other-{number}" for number in range(UNLABELLED)]
            list(makers.map(partial(_add_other, installed.control_plane, padding), names))
        return without, _resident_when_ready(installed, folder)


def _resident_when_ready(installed: Installation, folder: Path) -> int:
    controller = ControllerProcess(installed.control_plane, folder / "controller.log")
    until(controller.is_ready)
    time.sleep(PAUSE_SECONDS)  # the watches have begun by then
    resident = resident_bytes(controller.process.pid)
    controller.kill()
    return resident


def _add_other(control_plane: ControlPlane, annotations: dict[str, str], name: str) -> None:
    container = {"name": "main", "image": "localhost/never-pulled"}
    pod = {"metadata": {"name": name, "annotations": annotations}, "spec": {"containers": [container]}}
    control_plane.api.send("POST", "/api/v1/namespaces/crowd/pods", pod)


def _edit(fleet: Fleet, total: int) -> float:
    """Seconds from the edit to Programmed; then the pause."""
    (policy,) = fleet.policies()
    path = f"/apis/membudget.dev/v1alpha1/namespaces/{fleet.namespace}/memorypolicies"
    version = policy["metadata"]["resourceVersion"]
    with fleet.control_plane.api.watch(f"{path}?watch=true&resourceVersion={version}") as events:
        began = time.monotonic()
        fleet.apply("retrieval", budget={"total": f"{total}Mi"})
        generation = policy["metadata"]["generation"] + 1
        for event in events:
            if _says_programmed(event["object"], generation):
                break
        seconds = time.monotonic() - began
    time.sleep(PAUSE_SECONDS)
    return seconds


def _is_programmed(fleet: Fleet) -> bool:
    (policy,) = fleet.policies()
    return _says_programmed(policy, policy["metadata"]["generation"])


def _says_programmed(policy: dict[str, Any], generation: int) -> bool:
    conditions: list[dict[str, Any]] = policy.get("status", {}).get("conditions", [])
    said = [one for one in conditions if one["type"] == "Programmed" and one["observedGeneration"] == generation]
    return [one["status"] for one in said] == ["True"]


def _cpu(pids: dict[str, int]) -> dict[str, float]:
    """User and system time so far, in seconds."""
    return {name: _cpu_of(pid) for name, pid in pids.items()}


def _cpu_of(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS


if __name__ == "__main__":
    if sys.argv[1:] == ["unlabelled"]:
        alone, crowded = measure_unlabelled()
        rows = [[UNLABELLED, alone / MIB, crowded / MIB, (crowded - alone) / MIB]]
        table("Pods without the label", ("pods", "controller without, MiB", "with, MiB", "more, MiB"), rows)
    elif sys.argv[1:2] == ["fleet"]:
        chosen = [int(count) for count in sys.argv[2:4]] or FLEET
        table(
            "A fleet of many policies, from a cold start",
            (
                "pods",
                "policies",
                "all hold s",
                "all statuses s",
                "controller CPU s",
                "controller RSS, MiB",
                "API writes",
                "in the worst second",
            ),
            [measure_fleet(*chosen)],
        )
    else:
        runs = [measure(int(size)) for size in sys.argv[1:] or SIZES]
        table(
            "From apply to Programmed",
            (
                *("pods", "edits", "p50 s", "worst s", "cold start s"),
                "CPU %: controller / API server / etcd / sidecars",
                *("controller RSS, MiB", "API writes/s"),
            ),
            [run.row() for run in runs],
        )
