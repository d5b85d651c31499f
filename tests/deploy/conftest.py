"""helm on the PATH, as the scripts of a release look for it."""

import os

import pytest

from charts.tools import find_tools


@pytest.fixture
def helm_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the chart's tests use."""
    monkeypatch.setenv("PATH", f"{find_tools().folder}{os.pathsep}{os.environ['PATH']}")
