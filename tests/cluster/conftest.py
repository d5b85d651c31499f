"""One control plane for the whole run, one fresh namespace for each test, and the build outside of any time limit."""

import itertools
from collections.abc import Iterator

import pytest
from _pytest.capture import CaptureManager

from cluster.binaries import build, required
from cluster.control_plane import ControlPlane

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
