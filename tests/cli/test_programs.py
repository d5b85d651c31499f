"""Programs that a command starts: none of them outlives it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from membudget_cli.programs import running_module

_started: list[subprocess.Popen[bytes]] = []


class _InterruptedAtItsStart(subprocess.Popen[bytes]):
    """Ctrl-C in the moment in which a program runs and nobody knows it yet."""

    def __init__(self, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        _started.append(self)
        signal.raise_signal(signal.SIGINT)  # at this thread: a command has no other one yet, a test's process may


@pytest.fixture
def heard() -> Generator[None]:
    """SIGINT as at a terminal, whoever runs these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_in_the_moment_of_a_start_leaves_no_program_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-S12: it is stopped before the interrupt goes on."""
    monkeypatch.setattr(subprocess, "Popen", _InterruptedAtItsStart)
    with pytest.raises(KeyboardInterrupt), running_module("http.server", ["0"], tmp_path / "log"):
        pytest.fail("the interrupt came too late")
    assert [True] == [process.returncode is not None for process in _started]
