"""`membudget top`: what is drawn of one look, and how it runs on and ends."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.local_stack import COMMAND, LocalStack
from membudget_cli.top import sparkline
from membudget_contract.figures_api import HistorySample

SECONDS = 20.0
INTERRUPTIBLE = ["env", "--default-signal=INT", *COMMAND]
"""Whoever runs these tests in the background has SIGINT ignored, and a child would inherit that."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[LocalStack]:
    """Only looked at."""
    made = LocalStack(tmp_path_factory.mktemp("top"))
    yield made
    made.end()


def test_one_look_shows_usage_rungs_components_and_actions(stack: LocalStack) -> None:
    """R-T03: exit code 0; s, h and e mark where the rungs begin."""
    asked = stack.run("top", "--once")
    expected = ["by-hand", "level Normal", "last actions", "outlook", "of 100.0 MiB", "s", "h", "e"]
    assert (0, []) == (asked.returncode, [text for text in expected if text not in asked.stdout]), asked.stdout
    bar = next(line for line in asked.stdout.splitlines() if "of 100.0 MiB" in line)
    assert (48, 55, 58) == tuple(bar.lstrip("│ ").index(mark) for mark in "she")


def test_elsewhere_than_on_a_terminal_it_writes_a_line_a_look_until_interrupted(stack: LocalStack) -> None:
    """R-T03: Ctrl-C ends it with 130, no traceback."""
    command = [*INTERRUPTIBLE, "top", "--every", "0.1", "--run", str(stack.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=SECONDS)
    assert (3, 130, False) == (
        sum("of 100.0 MiB" in line for line in lines),
        running.returncode,
        "Traceback" in told,
    )


def test_on_a_terminal_it_draws_again_and_leaves_the_screen_as_it_was(stack: LocalStack) -> None:
    """R-T03: the alternate screen is entered once and left at Ctrl-C."""
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    command = [*INTERRUPTIBLE, "top", "--every", "0.1", "--run", str(stack.folder)]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment) as running:
        os.close(its)
        drawn = _read(ours, lambda text: text.count(b"level Normal") >= 3)
        running.send_signal(signal.SIGINT)
        drawn += _read(ours, lambda text: b"interrupted" in text)
        assert 130 == running.wait(SECONDS)
    os.close(ours)
    assert (1, 1) == (drawn.count(b"\x1b[?1049h"), drawn.count(b"\x1b[?1049l"))


def test_a_sidecar_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    """R-T03: what was seen last stays in sight, with the reason."""
    made = LocalStack(tmp_path)
    command = [*INTERRUPTIBLE, "top", "--every", "0.1", "--run", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert "of 100.0 MiB" in running.stdout.readline()
        made.end()
        until = time.monotonic() + SECONDS
        line = running.stdout.readline()
        while "no answer" not in line and time.monotonic() < until:
            line = running.stdout.readline()
        running.send_signal(signal.SIGINT)
    assert "no answer: no sidecar answers" in line


@given(st.lists(st.one_of(st.none(), st.integers(0, 1 << 40)), max_size=60), st.integers(1, 1 << 40))
def test_each_sample_is_one_step_and_more_is_never_drawn_lower(samples: list[int | None], budget: int) -> None:
    """R-T03: blanks where nothing was read, never a zero."""
    drawn = sparkline([HistorySample(at=0.0, used_bytes=used) for used in samples], budget)
    assert len(samples) == len(drawn)
    assert [used is None for used in samples] == [step == " " for step in drawn]
    read = sorted((used, step) for used, step in zip(samples, drawn, strict=True) if used is not None)
    assert [step for _, step in read] == sorted(step for _, step in read)


def _read(descriptor: int, enough: Callable[[bytes], bool]) -> bytes:
    """What comes until it is enough."""
    text, until = b"", time.monotonic() + SECONDS
    while not enough(text) and time.monotonic() < until:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                text += os.read(descriptor, 65536)
            except OSError:  # its end was closed
                break
    return text
