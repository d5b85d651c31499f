"""The store takes nothing more, or takes its time.

Covers: faults 21 and 23, with a real etcd, a real API server, a real controller with short times (`brisk_controller`)
and fake sidecars.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.api_requests import ApiRefused
from cluster.binaries import require
from cluster.controller_process import ControllerProcess
from cluster.credentials import CONTROLLER
from cluster.fleet import Fleet
from cluster.installation import until
from cluster.test_api_server_faults import RETURN_SECONDS, with_pods

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
FULL_SECONDS = 6.0
PATIENCE_SECONDS = 5.0
"""A write that failed is left alone for so long."""
FSYNC_SECONDS = 0.5


@pytest.fixture
def full_store(fleet: Fleet) -> Iterator[Callable[[], None]]:
    """Etcd over its quota, by the alarm that it raises then; taken back at the end at the latest."""
    etcd = fleet.control_plane.etcd
    yield lambda: etcd.say_no_space(full=True)
    etcd.say_no_space(full=False)


@pytest.fixture
def slow_store(fleet: Fleet) -> Iterator[subprocess.Popen[bytes]]:
    """Each write of etcd to its disk takes half a second longer."""
    require(shutil.which("strace") is not None, "strace is missing. On Debian: apt-get install strace")
    etcd = fleet.control_plane.etcd
    etcd.kill()
    etcd.start(durable=True)
    until(lambda: can_write(fleet))
    delay = f"inject=fdatasync,fsync:delay_enter={int(FSYNC_SECONDS * 1_000_000)}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-p", str(etcd.pid), "-e", "trace=fdatasync,fsync", "-e", delay, "-o", "/dev/null"]
    )
    until(lambda: writing_seconds(fleet) >= FSYNC_SECONDS)
    yield tracer
    tracer.terminate()
    tracer.wait()
    etcd.kill()
    etcd.start()
    until(lambda: can_write(fleet))


def test_a_full_store_stops_no_known_plan_and_is_not_pestered(
    fleet: Fleet, start_controller: Start, full_store: Callable[[], None]
) -> None:
    """R-P08, R-P10, fault 21: a pod that lost its plan gets it; what cannot be written is tried each five seconds."""
    with_pods(fleet, 3)
    start_controller(brisk=True)
    fleet.wait_until_converged()
    fleet.check_it_stays(0.0)
    full_store()
    with pytest.raises(ApiRefused):
        fleet.apply("retrieval", budget={"total": "190Mi"})
    mark, began = fleet.control_plane.mark(), time.monotonic()
    lost = fleet.sidecars["retriever-0"]
    wanted = lost.held
    lost.held, lost.usage = None, 10_000  # over its budget too, which the status ought to say
    until(lambda: lost.held is not None and wanted is not None and lost.held.plan_hash == wanted.plan_hash)
    time.sleep(max(0.0, FULL_SECONDS - (time.monotonic() - began)))
    tried = [
        write for write in fleet.control_plane.writes(mark, events=True, refused=True) if write.user == CONTROLLER.name
    ]
    seconds = time.monotonic() - began
    assert 1 <= len(tried) <= 1 + seconds / PATIENCE_SECONDS
    fleet.control_plane.etcd.say_no_space(full=False)
    until(lambda: fleet.conditions("retrieval").get("Ready") == ("False", "OverBudget"), RETURN_SECONDS)
    lost.usage = 100
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged(RETURN_SECONDS)


@pytest.mark.usefixtures("slow_store")
def test_a_slow_disk_under_the_store_costs_time_and_nothing_else(
    fleet: Fleet, start_controller: Start, publish: Callable[[str], None]
) -> None:
    """R-P08, fault 23: half a second for each fsync; nothing is sent twice, nothing goes backward."""
    with_pods(fleet, 1)
    start_controller()
    fleet.wait_until_converged()
    began = time.monotonic()
    fleet.apply("retrieval", budget={"total": "190Mi"})
    fleet.wait_until_converged()
    publish(f"with {FSYNC_SECONDS} s for each fsync of etcd: converged {time.monotonic() - began:.1f} s after an edit")
    assert [2] == [len(sidecar.accepted) for sidecar in fleet.sidecars.values()]
    fleet.check_it_stays(1.0)


def can_write(fleet: Fleet) -> bool:
    """The API server has found its store again."""
    try:
        return writing_seconds(fleet) > 0
    except (ApiRefused, OSError):
        return False


def writing_seconds(fleet: Fleet) -> float:
    """How long one write takes."""
    began = time.monotonic()
    path = f"/api/v1/namespaces/{fleet.namespace}"
    fleet.control_plane.api.send("PATCH", path, {"metadata": {"annotations": {"written": str(began)}}})
    return time.monotonic() - began
