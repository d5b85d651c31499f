"""A process that knows nothing of membudget is found, followed over restarts, and left alone (R-S14)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from membudget_contract.policy import Signal
from membudget_sidecar.acting.observed_link import OBSERVED, ObservedLink
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.settings import SidecarSettings
from sidecar.fake_engine import eventually
from sidecar.hand_driven import policy_text
from sidecar.sidecar_process import Started

MIB = 1 << 20
RSS = Signal.RESIDENT_SET_SIZE
SCRIPT = "import time, sys\nheld = bytearray(int(sys.argv[1]) << 20)\nprint(flush=True)\ntime.sleep(600)\n"


@contextlib.contextmanager
def running(script: Path, mebibytes: int) -> Generator[int]:
    """A plain Python that holds so much; its pid."""
    argv = [sys.executable, str(script), str(mebibytes)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A program with a name that nothing else here has."""
    path = tmp_path / f"plain_service_{os.getpid()}.py"
    path.write_text(SCRIPT)
    return path


def link_to(whom: int | str, folder: Path) -> ObservedLink:
    """A link that looks in the real /proc."""
    return ObservedLink(SidecarSettings(folder, folder / "state", None), whom)


def test_a_name_is_found_again_after_a_restart(script: Path, tmp_path: Path) -> None:
    """R-S14: waiting, observed, gone, observed; each process measured as the kernel shows it."""
    link = link_to(script.name, tmp_path)
    seen: list[tuple[bool, str]] = [(link.find(), link.state)]
    pids: list[int] = []
    for mebibytes in (40, 80):
        with running(script, mebibytes) as pid:
            seen += [(link.find(), link.state), (link.find(), link.state)]
            assert link.process is not None
            reading = link.process.signal_reading(RSS).bytes
            assert isinstance(reading, int)
            assert mebibytes < reading >> 20 < mebibytes + 30
            pids.append(pid)
            assert link.process.pid == pid
        seen.append((link.find(), link.state))
        assert isinstance(link.process.signal_reading(RSS).bytes, Absent)
    once = [(True, OBSERVED), (False, OBSERVED), (False, "WaitingForEngine")]
    assert seen == [(False, "WaitingForEngine"), *once, *once]
    assert pids[0] != pids[1]


def test_a_pid_is_found_and_of_two_with_one_name_the_oldest(script: Path, tmp_path: Path) -> None:
    """R-S14: the one that started the others holds what matters."""
    with running(script, 1) as first:
        time.sleep(0.02)  # start times are told in hundredths of a second
        with running(script, 1) as second:
            by_name, by_pid = link_to(script.name, tmp_path), link_to(second, tmp_path)
            assert [True, True] == [by_name.find(), by_pid.find()]
            assert by_name.process is not None
            assert by_pid.process is not None
            assert (first, second) == (by_name.process.pid, by_pid.process.pid)


def test_a_name_that_only_the_sidecar_carries_is_nobody(tmp_path: Path) -> None:
    """R-S14: its own command line names whom it looks for."""
    assert not link_to(os.getpid(), tmp_path).find()


def test_a_sidecar_beside_a_plain_process_observes_it_and_does_nothing(script: Path, tmp_path: Path) -> None:
    """R-S14, R-P12: the policy enforces; measured, decided, and only exported what would have been done."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(sampling={"intervalSeconds": 1}, thresholds={"collect": {"percent": 100}}))
    started = Started(tmp_path, "--policy", str(policy), "--observe", script.name)
    try:
        started.until(engine="WaitingForEngine", mode="Observe", level="Normal")
        with running(script, 100) as pid:
            started.until(engine=OBSERVED, level="Emergency")
            eventually(lambda: bool(_actions(started)), "what would have been done")
            status, before = started.status(), Path(f"/proc/{pid}/statm").read_text().split()[1]
            done = {(record["kind"], record["status"]) for record in _actions(started)}
            assert {("Evict", "Observed")} == done - {("Collect", "Observed")}
            assert (100 * MIB, None) == (status["budgetBytes"], status["roomBytes"])
            assert status["usage"]["value"] > 98 * MIB
            assert before == Path(f"/proc/{pid}/statm").read_text().split()[1]
        started.until(engine="WaitingForEngine")
        with running(script, 10):
            started.until(engine=OBSERVED, level="Normal")
    finally:
        code, log = started.end(SIGTERM)
    assert (code, "Traceback" in log) == (0, False)


def _actions(started: Started) -> list[dict[str, Any]]:
    return started.ask("GET", "/v1/actions")[1]["actions"]
