"""`membudget profile` as people run it: quick, piped, interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.alone

COMMAND = ["env", "--default-signal=INT", sys.executable, "-m", "membudget_cli", "profile"]
"""Whoever runs these tests in the background has SIGINT ignored, and a child would inherit that."""
SECONDS = 200


def environment(folder: Path) -> dict[str, str]:
    """Temporary files lie in `folder`."""
    return os.environ | {"TMPDIR": str(folder), "COLUMNS": "160"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A whole quick profile; its arguments end with the report's folder, beside which it had its temporary files."""
    folder = tmp_path_factory.mktemp("profile")
    (folder / "temporary").mkdir()
    return subprocess.run(
        [*COMMAND, "--quick", "-o", "json", "--report", str(folder / "docs")],
        env=environment(folder / "temporary"), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


@pytest.fixture
def answer(quick: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What it wrote to stdout: nothing but JSON."""
    return json.loads(quick.stdout)


def test_a_quick_profile_measures_every_part(answer: dict[str, Any], publish: Callable[[str], None]) -> None:
    """R-T01: processes of their own, figures of the kernel; what is a count holds on any machine."""
    profile = answer["profile"]
    counts = [run["chunks"] for run in profile["stores"]["runs"] if run["kind"] == "memory"]
    answered = {
        name: [sum(phase[name]["answered_by"].values()) for phase in profile["workload"]["phases"]]
        for name in ("ours", "naive")
    }
    assert ([10_000, 12_500, 25_000], {}) == (sorted(counts), profile["workload"]["failures"])
    assert {"ours": [300, 600, 100], "naive": [300, 600, 100]} == answered
    assert {"loaded", "mapped"} == {run["kind"] for run in profile["mmap"]["runs"]}
    for verdict in answer["verdicts"]:
        publish(f"profile --quick: {verdict['promise']}: {verdict['measured']}")


def test_its_verdicts_on_bytes_hold_here(answer: dict[str, Any]) -> None:
    """R-T01: those that no other load on the machine can change; times are published, not asserted."""
    timed = ("longer", "fewer bytes", "ladder stays silent")
    judged = {verdict["promise"]: verdict["holds"] for verdict in answer["verdicts"]}
    assert [] == [promise for promise, holds in judged.items() if not holds and not any(w in promise for w in timed)]


def test_the_exit_code_says_whether_a_promise_fails(
    quick: subprocess.CompletedProcess[str], answer: dict[str, Any]
) -> None:
    """R-T01: 1 when one does, 0 when none does."""
    assert any(verdict["holds"] is False for verdict in answer["verdicts"]) == quick.returncode


def test_progress_goes_to_stderr_and_nothing_is_left_but_the_report(
    quick: subprocess.CompletedProcess[str], answer: dict[str, Any]
) -> None:
    """R-T01: a line for each step without a terminal; temporary files are gone."""
    report = Path(answer["report"])
    steps = [line.split(":")[0] for line in quick.stderr.splitlines()]
    assert ["corpus", "stores", "mmap", "caches", "workload"] == list(dict.fromkeys(steps))
    assert ["docs", "temporary"] == sorted(path.name for path in report.parents[1].iterdir())
    assert [] == list((report.parents[1] / "temporary").iterdir())
    assert "A quick run" in report.read_text()


def test_ctrl_c_stops_and_removes_everything(tmp_path: Path) -> None:
    """R-T01: exit code 130, no traceback, no process, no file, in the midst of the workload."""
    process = subprocess.Popen(
        [*COMMAND, "--quick", "--only", "workload"],
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        before = ""
        while "what fits" not in before:
            before += process.stderr.readline() or pytest.fail(before)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        _, after = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in after, "interrupted" in after) == (130, False, True)
    assert (True, [], []) == (len(children) >= 3, [c for c in children if c.is_running()], list(tmp_path.iterdir()))


def test_the_programs_it_started_end_with_it_even_when_it_is_killed(tmp_path: Path) -> None:
    """R-T01: SIGKILL leaves nothing running, in the midst of a measurement."""
    process = subprocess.Popen(
        [*COMMAND, "--quick", "--only", "caches"],
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    before = ""
    while "caches" not in before:
        before += process.stderr.readline() or pytest.fail(before)
    started: list[psutil.Process] = []
    while not started:
        started = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(started, timeout=15)
    assert [] == alive


def test_a_measured_program_ends_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    """R-T01: also when the profile was killed: its standard input ends."""
    (tmp_path / "lines").write_text("value\n" * 10)
    argv = [
        sys.executable,
        "-m",
        "membudget_cli.profile.measured.cache",
        "dict",
        str(tmp_path),
        str(tmp_path / "lines"),
    ]
    program = subprocess.Popen(
        [*argv, "1000", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"empty\n"
    _, problem = program.communicate(timeout=10)
    assert (1, b"nobody reads any more\n") == (program.returncode, problem)


@pytest.mark.parametrize("wrong", ["naive", "stores,", ""])
def test_an_unknown_part_is_refused_with_those_there_are(wrong: str) -> None:
    """R-T03: exit code 2."""
    asked = subprocess.run([*COMMAND, "--only", wrong], capture_output=True, text=True, timeout=30, check=False)
    assert (2, True) == (asked.returncode, "stores, mmap, caches, workload" in asked.stderr)
