"""`membudget status` and the command line's manners."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "membudget_cli"]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_without_a_sidecar_it_says_which_socket_it_asked(tmp_path: Path) -> None:
    """R-S09: one clear line, exit code 1."""
    asked = _run("status", "--run", str(tmp_path))
    assert (asked.returncode, str(tmp_path / "sidecar.sock") in asked.stderr, "Traceback" in asked.stderr) == (
        1, True, False,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [("--help",), ("demo", "--help"), ("status", "--help")])
def test_every_command_explains_itself(arguments: tuple[str, ...]) -> None:
    """R-T03: --help ends with exit code 0 and says what the command is for."""
    asked = _run(*arguments)
    assert (asked.returncode, "usage: membudget" in asked.stdout) == (0, True)


@pytest.mark.parametrize("seconds", ["5", "900", "soon"])
def test_a_length_that_shows_nothing_is_refused(seconds: str) -> None:
    """R-T03: wrong arguments end with exit code 2."""
    assert _run("demo", "--seconds", seconds).returncode == 2
