"""Draws the dashboards for docs/images from a run of real processes: `make dashboard-pictures`.

Covers: five minutes of a small fleet: two retrieval pods under one policy that is edited twice, a service that takes
memory nobody manages and gives it back, one that leaks. Does not cover drawing (`membudget_observability.pictures`).
Needs what the tests need: root, the binaries of a control plane, Debian's prometheus.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.control_plane import ControlPlane
from cluster.installation import PodPlace, RetrievalPod
from membudget_contract.quantities import MIB
from membudget_observability.dashboard_files import FOLDER
from membudget_observability.pictures import draw, load
from observability.observed_fleet import NAMESPACE, ObservedFleet
from observability.prometheus_server import Prometheus, Target, prometheus

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SECONDS = 300
STEP_SECONDS = 3
CHOSEN = {
    "fleet": {"namespace": ".*"},
    "policy": {"policy": "search/retrieval"},
    "pod": {"namespace": NAMESPACE, "pod": "retriever-0"},
    "engine": {"namespace": NAMESPACE, "pod": "retriever-0"},
}
ASKING = Path(__file__).with_name("ask_on.py")


def main() -> None:
    """Run, then draw."""
    with tempfile.TemporaryDirectory(prefix="membudget-pictures-") as name:
        folder = Path(name)
        build = ["-m", "membudget_engine", "build", f"--data={folder / 'data'}", "--source=stdlib"]
        subprocess.run([sys.executable, *build], check=True, capture_output=True)
        (folder / "control-plane").mkdir()
        (folder / "fleet").mkdir()
        with (
            ControlPlane(folder / "control-plane") as control_plane,
            ObservedFleet(control_plane, folder / "data", folder / "fleet") as fleet,
        ):
            second = PodPlace(NAMESPACE, "retriever-1", "10.244.1.11", 18081)
            pod = RetrievalPod(control_plane, second, folder / "data", folder / "retriever-1")
            labels = {"namespace": NAMESPACE, "pod": second.name}
            targets = [Target("sidecar", f"{second.address}:9465", labels),
                       Target("engine", f"127.0.0.1:{second.engine_port}", labels)]  # fmt: skip
            targets = [*fleet.targets(), *targets]
            with prometheus(
                control_plane.network, folder / "prometheus", targets, interval=f"{STEP_SECONDS}s", lasting=None
            ) as server:
                _draw(server, _run(fleet, second))
            pod.close()


def _run(fleet: ObservedFleet, second: PodPlace) -> float:
    """The five minutes; unix seconds of their begin."""
    fleet.apply_policy("150Mi")
    askers = [
        _asker(fleet, port, agents)
        for port, agents in ((fleet.retriever.place.engine_port, 6), (second.engine_port, 3))
    ]
    began = time.time()
    events: list[tuple[float, Callable[[], Any]]] = [
        (30, lambda: fleet.leaky.send("grow")),
        (50, lambda: fleet.crowded.tell(f"fill docs {12 * MIB}")),
        (120, lambda: fleet.apply_policy("130Mi")),
        (150, lambda: fleet.crowded.tell(f"hold {50 * MIB}")),
        (190, lambda: fleet.crowded.tell("hold 0")),
        (210, lambda: fleet.apply_policy("140Mi")),
        (220, lambda: fleet.crowded.tell(f"fill docs {12 * MIB}")),
    ]
    for at, event in events:
        time.sleep(max(0.0, began + at - time.time()))
        event()
    time.sleep(max(0.0, began + SECONDS - time.time()))
    for asker in askers:
        asker.communicate()
    return began


def _asker(fleet: ObservedFleet, port: int, agents: int) -> subprocess.Popen[str]:
    """Asking when this returns."""
    command = fleet.control_plane.inside([sys.executable, str(ASKING), str(port), str(agents)])
    asker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    assert asker.stdout.readline() == "asking\n"
    return asker


def _draw(server: Prometheus, began: float) -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, values in CHOSEN.items():
        draw(
            load(FOLDER / f"{name}.json"),
            values,
            lambda expression: server.query_range(expression, began, began + SECONDS, STEP_SECONDS),
            IMAGES / f"{name}.png",
        )


if __name__ == "__main__":
    main()
