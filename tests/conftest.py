"""What holds for the whole run: who runs alone, figures that were measured, no green suite in which nothing ran."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import settings

settings.register_profile("membudget", deadline=None)
settings.load_profile("membudget")
"""A property says nothing about time: a machine that is busy for a second must not refute it."""

FIGURE: Final = "figure"
ALONE_MARKS: Final = frozenset({"cgroup", "cluster", "emulated", "node", "prometheus"})
ALONE_FOLDERS: Final = frozenset({"cluster", "emulated", "node", "system"})
"""Their tests put a machine under load and watch what it does, or wait for one that they started."""

FAULT_RUNS: Final = int(os.environ.get("MEMBUDGET_FAULT_RUNS", "0"))
"""With it, only tests that name a fault of the catalogue run, each so many times; `make torture` asks for 20."""
_FAULT: Final = re.compile(r"\b(fault|case)s? \d")

_figures: list[str] = []
_outcomes = {"ran": 0, "skipped": 0}


@pytest.fixture
def publish(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tell a measured figure; all of them stand at the end of the run, whichever process measured them."""
    return lambda figure: request.node.user_properties.append((FIGURE, figure))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what really ran, and collect its figures."""
    if report.skipped:
        _outcomes["skipped"] += 1
    elif report.when == "call":
        _outcomes["ran"] += 1
    if report.when == "teardown":
        _figures.extend(str(value) for name, value in report.user_properties if name == FIGURE)


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a fault as often as asked."""
    if FAULT_RUNS and _names_fault(metafunc.function):
        metafunc.fixturenames.append("fault_run")
        metafunc.parametrize("fault_run", range(FAULT_RUNS))


def _names_fault(test: object) -> bool:
    return _FAULT.search(getattr(test, "__doc__", None) or "") is not None


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark who runs alone; leave minutes-long runs to `make soak`, which asks for them by their mark."""
    for item in items:
        if item.path.parent.name in ALONE_FOLDERS or any(mark.name in ALONE_MARKS for mark in item.iter_markers()):
            item.add_marker("alone")
    if FAULT_RUNS:
        others = [item for item in items if not _names_fault(getattr(item, "function", None))]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    if "soak" in str(config.getoption("-m")):
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=soak)
    items[:] = [item for item in items if item not in soak]
