"""One node for the whole run with the chart installed on it; what takes minutes is built outside of any time limit."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.capture import CaptureManager

from node import images
from node.binaries import PROGRAMS, build, find_binaries, require, required
from node.installed import Installed
from node.node import Node, node


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these to `make node-test`, which asks for them by their mark."""
    if "node" in str(config.getoption("-m")):
        return
    unasked = [item for item in items if item.get_closest_marker("node")]
    config.hook.pytest_deselected(items=unasked)
    items[:] = [item for item in items if item not in unasked]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now: binaries where they are required, images where anything can build them."""
    if session.config.option.collectonly or not any(item.get_closest_marker("node") for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    assert isinstance(capture, CaptureManager)
    with capture.global_and_fixture_disabled():
        if required():
            build()
        if not _missing():
            images.build()


def _missing() -> list[str]:
    return [f"{name} (apt-get install {package})" for name, package in PROGRAMS.items() if shutil.which(name) is None]


@pytest.fixture(scope="session")
def image_archives() -> list[Path]:
    """The three images, just built from this checkout."""
    require(os.geteuid() == 0, "a node needs root")
    require(not _missing(), f"these are missing: {', '.join(_missing())}")
    assert images.build() == 0, "the images cannot be built; the reason stands above"
    return images.archives_now()


@pytest.fixture(scope="session")
def running_node(image_archives: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Ready, with the images in its store."""
    folder = tmp_path_factory.mktemp("node")
    with node(find_binaries(), folder) as running:
        for archive in image_archives:
            running.import_image(archive)
        yield running
    shutil.rmtree(folder / "containerd")  # a gigabyte, and of no use to anybody who reads the logs


@pytest.fixture(scope="session")
def installed(running_node: Node, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The chart with its example, ready; when tests failed, what the cluster says about it."""
    installation = Installed(running_node)
    try:
        installation.install()
        yield installation
    finally:
        if request.session.testsfailed:
            sys.stderr.write(installation.account())
