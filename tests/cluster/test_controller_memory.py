"""What the controller's memory is spent on, and what becomes of it when there is no more.

Covers: faults 13 and 38 with a real API server and a real controller in a memory cgroup of its own. What 10,000
unlabelled and 5,000 labelled pods cost is measured by benches/controller_scale.py.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet
from cluster.test_api_server_faults import with_pods
from membudget_contract.quantities import MIB
from memory_cgroup import MemoryCgroup, memory_cgroup

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
LIMIT = 96 * MIB
STEP = 256 * 1024
STRANGERS = 300
PADDING = {f"example.com/padding-{number}": "x" * 900 for number in range(30)}
"""What managed fields and annotations of other tools come to."""
RESTART_SECONDS = 30.0


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    """The controller's container."""
    with memory_cgroup(LIMIT) as made:
        yield made


def test_killed_for_memory_in_the_middle_of_a_fan_out(
    fleet: Fleet, start_controller: Start, cgroup: MemoryCgroup
) -> None:
    """R-P08, fault 38: by the kernel, at its limit; started again it fits, and does the rest."""
    with_pods(fleet, 40)
    controller = start_controller(cgroup=cgroup)
    fleet.wait_until_converged()
    for sidecar in fleet.sidecars.values():
        sidecar.mode = "hang"  # each holds a thread of the controller's, and with it memory
    tighten(cgroup)
    fleet.apply("retrieval", budget={"total": "190Mi"})
    assert controller.process.wait(RESTART_SECONDS) == -signal.SIGKILL
    assert cgroup.oom_kills() == 1
    for sidecar in fleet.sidecars.values():
        sidecar.mode = ""
    cgroup.set_limit(LIMIT)
    began = time.monotonic()
    start_controller(cgroup=cgroup)
    fleet.wait_until_converged(RESTART_SECONDS - (time.monotonic() - began))
    fleet.check_it_stays(1.0)
    assert cgroup.oom_kills() == 1


def test_pods_without_the_label_are_not_even_received(
    fleet: Fleet, start_controller: Start, publish: Callable[[str], None]
) -> None:
    """R-P01, fault 13: 9 MB of pods that did not opt in, before the controller starts and while it watches."""
    with_pods(fleet, 2)
    baseline = resident_after_start(fleet, start_controller)
    with ThreadPoolExecutor(4) as makers:
        list(makers.map(partial(add_stranger, fleet), range(STRANGERS // 2)))
    controller = start_controller(brisk=True)
    fleet.wait_until_converged()
    with ThreadPoolExecutor(4) as makers:
        list(makers.map(partial(add_stranger, fleet), range(STRANGERS // 2, STRANGERS)))
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()
    time.sleep(2.0)  # a full list or two
    more = resident(controller) - baseline
    publish(f"{STRANGERS} unlabelled pods of 30 kB: the controller grew by {more / MIB:.1f} MiB")
    assert (controller.counted("membudget_controller_pods "), more < 4 * MIB) == (2, True)


def tighten(cgroup: MemoryCgroup) -> None:
    """Down to what v1 refuses, which drops page cache first: the next few pages are too many. v2 kills at once."""
    limit = LIMIT
    with contextlib.suppress(OSError):
        while limit > 0:
            cgroup.set_limit(limit)
            limit -= STEP


def resident_after_start(fleet: Fleet, start_controller: Start) -> int:
    """Of a controller that has done the same without strangers."""
    controller = start_controller(brisk=True)
    fleet.wait_until_converged()
    fleet.apply("retrieval", budget={"total": "185Mi"})
    fleet.wait_until_converged()
    time.sleep(2.0)
    amount = resident(controller)
    controller.kill()
    return amount


def resident(controller: ControllerProcess) -> int:
    """From the kernel."""
    lines = Path(f"/proc/{controller.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def add_stranger(fleet: Fleet, number: int) -> None:
    """A pod that did not opt in."""
    container = {"name": "main", "image": "localhost/never-pulled"}
    pod = {"metadata": {"name": f"other-{number}", "annotations": PADDING}, "spec": {"containers": [container]}}
    fleet.control_plane.api.send("POST", f"/api/v1/namespaces/{fleet.namespace}/pods", pod)
