"""What holds for the whole run: a suite in which every test was skipped is no green suite."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("membudget", deadline=None)
settings.load_profile("membudget")
"""A property says nothing about time: a machine that is busy for a second must not refute it."""

_figures: list[str] = []
_outcomes = {"ran": 0, "skipped": 0}


@pytest.fixture
def publish() -> Callable[[str], None]:
    """Tell a measured figure; all of them stand at the end of the run."""
    return _figures.append


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what really ran."""
    if report.skipped:
        _outcomes["skipped"] += 1
    elif report.when == "call":
        _outcomes["ran"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped everything: known bug 20 of the fault catalogue."""
    if _outcomes["skipped"] and not _outcomes["ran"] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures that were measured, and why the run failed if nothing ran."""
    if _figures:
        terminalreporter.write_sep("=", "figures measured")
        for figure in _figures:
            terminalreporter.write_line(figure)
    if _outcomes["skipped"] and not _outcomes["ran"]:
        terminalreporter.write_line(f"all {_outcomes['skipped']} tests were skipped: that is a failure", red=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave minutes-long runs to `make soak`, which asks for them by their mark."""
    if "soak" in str(config.getoption("-m")):
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=soak)
    items[:] = [item for item in items if item not in soak]
