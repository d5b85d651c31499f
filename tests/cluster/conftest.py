"""One control plane for the whole run, one fresh namespace for each test, and the build outside of any time limit."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.capture import CaptureManager

from cluster.binaries import build, required
from cluster.control_plane import ControlPlane
from cluster.controller_process import ControllerProcess
from cluster.fleet import Fleet
from cluster.installation import Installation, PodPlace, RetrievalPod, until
from cluster.sidecar_farm import SidecarFarm
from membudget_contract.quantities import MIB

_numbers = itertools.count(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Under REQUIRE_CLUSTER=1 build what is missing now: a fixture that builds for minutes would meet the timeout."""
    if session.config.option.collectonly or not required():
        return
    if any(item.get_closest_marker("cluster") for item in session.items):
        capture = session.config.pluginmanager.getplugin("capturemanager")
        assert isinstance(capture, CaptureManager)
        with capture.global_and_fixture_disabled():
            build()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server, ready."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A Kubernetes namespace of this test alone, removed with all it holds; the API server answers again after it."""
    name = f"test-{next(_numbers)}"
    control_plane.create_namespace(name)
    yield name
    control_plane.restore_api_server()
    control_plane.remove_namespace(name)


@pytest.fixture(scope="session")
def cluster_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard library as a collection."""
    folder = tmp_path_factory.mktemp("cluster-corpus") / "data"
    build_corpus = ["-m", "membudget_engine", "build", f"--data={folder}", "--source=stdlib"]
    subprocess.run([sys.executable, *build_corpus], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installation(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Membudget installed, its controller running."""
    installed = Installation(control_plane, tmp_path_factory.mktemp("installation"))
    installed.install()
    installed.start_controller()
    yield installed
    installed.close()


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Membudget installed; controllers are the test's to start."""
    ready = Installation(control_plane, tmp_path_factory.mktemp("installation"))
    ready.install()
    return ready


@pytest.fixture
def fleet(installed: Installation, namespace: str) -> Iterator[Fleet]:
    """No pods yet; those that a test makes are answered for by fake sidecars."""
    with SidecarFarm(installed.control_plane) as farm:
        yield Fleet(installed.control_plane, farm, namespace)


@pytest.fixture
def start_controller(installed: Installation, tmp_path: Path) -> Iterator[Callable[..., ControllerProcess]]:
    """Controllers of this test alone; afterwards no traceback may stand in their log (O7)."""
    started: list[ControllerProcess] = []
    log = tmp_path / "controller.log"

    def start(*, ready: bool = True, **options: Any) -> ControllerProcess:
        one = ControllerProcess(installed.control_plane, log, **options)
        started.append(one)
        if ready:
            until(one.is_ready)
        return one

    yield start
    for one in started:
        one.kill()
    assert "Traceback" not in (log.read_text(errors="replace") if log.exists() else "")


@pytest.fixture(scope="module")
def running_pod(
    installation: Installation, cluster_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RetrievalPod]:
    """One retrieval pod of real processes, for a whole module."""
    namespace = f"pods-{next(_numbers)}"
    installation.control_plane.create_namespace(namespace)
    place = PodPlace(namespace, "retriever-0", "10.244.1.10", 18080)
    pod = RetrievalPod(installation.control_plane, place, cluster_corpus, tmp_path_factory.mktemp("pod"))
    yield pod
    pod.close()
    installation.control_plane.remove_namespace(namespace)


@pytest.fixture
def pod(installation: Installation, running_pod: RetrievalPod) -> Iterator[RetrievalPod]:
    """The module's pod, following its profile; what a test applied is deleted after it."""
    until(lambda: running_pod.holds(150 * MIB))
    yield running_pod
    installation.control_plane.restore_api_server()
    installation.control_plane.kubectl("delete", "mempol", "--all", "-n", running_pod.place.namespace)
