"""Connections to the API server that stay open and bring nothing, and a cluster in which nothing happens.

Covers: fault 3, and the probe that tells a dead watch from a quiet cluster. A real API server, a real controller with
short times (`brisk_controller`), fake sidecars. With the usual times fault 3 is a soak test.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.api_proxy import ApiProxy
from cluster.brisk_controller import BRISK
from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet, never
from cluster.installation import until
from cluster.test_api_server_faults import proxy, with_pods

__all__ = ["proxy"]

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
API_PORT = 6443
SILENCE_SECONDS = {True: BRISK.watch_silence_seconds + BRISK.request_seconds + 4.0, False: 85.0}
"""Until a change is applied that was made behind a black hole, with brisk and with the usual times."""


@pytest.fixture
def black_hole(fleet: Fleet) -> Iterator[Callable[[ControllerProcess], int]]:
    """Packets of every connection that the controller has to the API server are dropped both ways; how many."""

    def drop(controller: ControllerProcess) -> int:
        ports = established(controller.process.pid)
        for port in ports:
            for direction in (
                ["--sport", str(port), "--dport", str(API_PORT)],
                ["--sport", str(API_PORT), "--dport", str(port)],
            ):
                rule = ["iptables", "-I", "INPUT", "-p", "tcp", *direction, "-j", "DROP"]
                subprocess.run(fleet.control_plane.inside(rule), check=True)
        return len(ports)

    yield drop
    subprocess.run(fleet.control_plane.inside(["iptables", "-F", "INPUT"]), check=True)


def established(pid: int) -> list[int]:
    """Local ports of a process's connections to the API server."""
    links = (link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())
    sockets = {name.removeprefix("socket:[").rstrip("]") for name in links if name.startswith("socket:")}
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    remote = f":{API_PORT:04X}"
    return [int(line[1].split(":")[1], 16) for line in lines if line[9] in sockets and line[2].endswith(remote)]


@pytest.mark.parametrize("brisk", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_established_connections_in_a_black_hole(
    fleet: Fleet, start_controller: Start, black_hole: Callable[[ControllerProcess], int], brisk: bool
) -> None:
    """R-P08, fault 3: no reset tells of it; a change made meanwhile is applied when silence has been long enough."""
    with_pods(fleet, 3)
    controller = start_controller(brisk=brisk)
    fleet.wait_until_converged()
    fleet.check_it_stays(1.0)
    assert black_hole(controller) >= 3  # two watches at least, and what lists and patches go over
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(SILENCE_SECONDS[brisk])
    until(lambda: behind(controller) == 0.0, SILENCE_SECONDS[brisk])  # lists may have brought it before the watch
    fleet.check_history()


def test_a_watch_that_hangs_silently_fails_the_probe_and_costs_no_change(
    fleet: Fleet, start_controller: Start, proxy: ApiProxy
) -> None:
    """R-P08, R-P10: lists bring the change, and show what the watch owes; it owes nothing once it lives again."""
    with_pods(fleet, 2)
    controller = start_controller(kubeconfig=proxy.kubeconfig, brisk=True)
    fleet.wait_until_converged()
    until(lambda: behind(controller) == 0.0)
    proxy.swallows_watches = True
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(2 * BRISK.list_seconds + 2.0)
    until(lambda: not is_alive(controller), BRISK.watch_behind_seconds + 2 * BRISK.list_seconds + 2.0)
    assert behind(controller) >= BRISK.watch_behind_seconds
    proxy.swallows_watches = False
    until(lambda: is_alive(controller) and behind(controller) == 0.0, 2 * BRISK.watch_silence_seconds + 4.0)


def test_a_quiet_cluster_is_alive_however_old_the_last_event_is(fleet: Fleet, start_controller: Start) -> None:
    """R-P10, fault 2: twice as long as a dead watch is given, with reports and lists going on."""
    with_pods(fleet, 2)
    controller = start_controller(brisk=True)
    fleet.wait_until_converged()
    fleet.check_it_stays(0.0)
    began = time.monotonic()
    never(lambda: not is_alive(controller), 2 * BRISK.watch_behind_seconds)
    age = controller.counted("membudget_controller_watch_age_seconds ")
    assert (behind(controller), age >= time.monotonic() - began) == (0.0, True)


def behind(controller: ControllerProcess) -> float:
    """Seconds for which a watch has owed something."""
    return controller.counted("membudget_controller_watch_behind_seconds ")


def is_alive(controller: ControllerProcess) -> bool:
    """By the probe that the kubelet goes by."""
    try:
        return bool(controller.ask("/healthz"))
    except ConnectionError:
        return False
