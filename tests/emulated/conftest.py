"""The parts of the machine, fetched outside of any time limit where they are required."""

import sys

import pytest
from _pytest.capture import CaptureManager

from emulated.parts import PartsMissing, cached_parts, fetch
from emulated.requirement import required


def pytest_collection_finish(session: pytest.Session) -> None:
    """Under REQUIRE_EMULATED=1 fetch what is missing now; what goes wrong, the test says."""
    if session.config.option.collectonly or not required():
        return
    if any(item.get_closest_marker("emulated") for item in session.items):
        capture = session.config.pluginmanager.getplugin("capturemanager")
        assert isinstance(capture, CaptureManager)
        with capture.global_and_fixture_disabled():
            try:
                fetch(cached_parts())
            except PartsMissing as error:
                sys.stderr.write(f"{error}\n")
