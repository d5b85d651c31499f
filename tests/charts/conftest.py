"""helm, once for the whole run, and its build outside of any time limit."""

from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.capture import CaptureManager

from charts.rendering import Chart, Manifests, Values
from charts.tools import Tools, build, find_tools, required


def pytest_collection_finish(session: pytest.Session) -> None:
    """Under REQUIRE_CLUSTER=1 build what is missing now: a fixture that builds for minutes would meet the timeout."""
    if session.config.option.collectonly or not required():
        return
    if any("tools" in getattr(item, "fixturenames", ()) for item in session.items):
        capture = session.config.pluginmanager.getplugin("capturemanager")
        assert isinstance(capture, CaptureManager)
        with capture.global_and_fixture_disabled():
            build()


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Helm and what checks its output."""
    return find_tools()


@pytest.fixture(scope="session")
def chart(tools: Tools) -> Chart:
    """Ours."""
    return Chart(tools.helm)


@pytest.fixture(scope="session")
def render(chart: Chart) -> Callable[[Values], Manifests]:
    """Its objects for some values."""
    return chart.render


@pytest.fixture
def helm(tools: Tools) -> Path:
    """The program."""
    return tools.helm
