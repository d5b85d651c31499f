"""`membudget demo` as people run it: piped, interrupted, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.alone

COMMAND = ["env", "--default-signal=INT", sys.executable, "-m", "membudget_cli"]
"""Whoever runs these tests in the background has SIGINT ignored, and a child would inherit that."""


@pytest.fixture
def demo(tmp_path: Path) -> Generator[subprocess.Popen[str]]:
    """A demo of 20 s of load whose temporary files lie in `tmp_path`."""
    process = subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "20"],
        env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "160"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_it_shows_a_budget_held_and_moved_without_a_failed_query(
    demo: subprocess.Popen[str], tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-S12, R-P02: plain lines without a terminal, the table at the end, exit code 0, nothing left behind."""
    output, _ = demo.communicate(timeout=240)
    expected = ["queries failed: 0", "restarts: 0", "under 165.0 MiB", "under 150.0 MiB", "Resize"]
    assert (demo.returncode, [text for text in expected if text not in output]) == (0, []), output
    assert list(tmp_path.iterdir()) == []
    publish("demo: " + next(line for line in output.splitlines() if "resident set, read by the demo" in line))


def test_ctrl_c_stops_and_removes_everything(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    """R-S12: exit code 130, no traceback, no process, no file."""
    children = _children_serving(demo.pid)
    os.kill(demo.pid, signal.SIGINT)
    output, _ = demo.communicate(timeout=30)
    assert (demo.returncode, "Traceback" in output, "interrupted" in output) == (130, False, True)
    assert ([child for child in children if child.is_running()], list(tmp_path.iterdir())) == ([], [])


def test_the_programs_it_started_end_with_it_even_when_it_is_killed(demo: subprocess.Popen[str]) -> None:
    """R-S12: SIGKILL leaves no engine and no sidecar running."""
    children = _children_serving(demo.pid)
    demo.kill()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


def _children_serving(pid: int) -> list[psutil.Process]:
    """Engine and sidecar, once both run."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):  # a builder that ends while we look
            children = psutil.Process(pid).children()
            lines = [" ".join(child.cmdline()) for child in children]
            if all(any(name in line for line in lines) for name in ("membudget_engine serve", "membudget_sidecar")):
                return children
        time.sleep(0.1)
    raise TimeoutError("engine and sidecar did not start within 60 s")
