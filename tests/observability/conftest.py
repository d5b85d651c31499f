"""One fleet, one Prometheus and one story for all tests that look at real figures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from membudget_engine.ingest.python_source import standard_library_root
from observability.causes import Story, tell
from observability.observed_fleet import ObservedFleet
from observability.prometheus_server import Prometheus, prometheus, wait_for
from observability.requirement import find_program

PACKAGES = ("json", "asyncio", "http")
PODS = 4


@dataclass(frozen=True)
class Observed:
    """After the story; everything still runs."""

    fleet: ObservedFleet
    server: Prometheus
    story: Story


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Takes about 75 s, most of it waiting for a leak to be one."""
    find_program("prometheus")
    folder = tmp_path_factory.mktemp("observed")
    data = _small_corpus(folder)
    (folder / "control-plane").mkdir()
    (folder / "fleet").mkdir()
    with (
        ControlPlane(folder / "control-plane") as control_plane,
        ObservedFleet(control_plane, data, folder / "fleet") as fleet,
        prometheus(control_plane.network, folder / "prometheus", fleet.targets()) as server,
    ):
        fleet.follow_policies()
        held = "count(membudget_plan_held == 1 and ignoring (signal) membudget_signal_bytes)"
        wait_for(lambda: [value for _, value in server.query(held)] == [PODS], 60, "every pod holds its plan")
        yield Observed(fleet, server, tell(fleet, server))


def _small_corpus(folder: Path) -> Path:
    """Some hundred chunks, under the name that the questions ask for."""
    for package in PACKAGES:
        shutil.copytree(standard_library_root() / package, folder / "source" / package)
    build = ["-m", "membudget_engine", "build", f"--data={folder / 'data'}", f"--source=stdlib={folder / 'source'}"]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    return folder / "data"
