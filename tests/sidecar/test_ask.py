"""One question to a sidecar from inside its container, as `membudget ... --pod` puts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from membudget_sidecar.ask import main
from sidecar.fake_engine import FakeEngine
from sidecar.hand_driven import policy_text
from sidecar.sidecar_process import Started


def test_the_answer_stands_behind_its_status_code(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """R-T03, R-S09: reads, writes, and refusals with their problem."""
    (tmp_path / "policy.yaml").write_text(policy_text())
    engine = FakeEngine(tmp_path).start()
    sidecar = Started(tmp_path, "--policy", str(tmp_path / "policy.yaml"))
    try:
        sidecar.until(engine="Connected")
        questions = [["GET", "/v1/status"], ["POST", "/v1/actions", '{"kind": "Collect"}'], ["GET", "/v1/nothing"]]
        answers: list[tuple[int, str]] = []
        for question in questions:
            assert 0 == main(question, tmp_path)
            code, _, content = capfdbinary.readouterr().out.partition(b"\n")
            document = json.loads(content)
            answers.append((int(code), document.get("engine") or document.get("kind") or document["reason"]))
        assert [(200, "Connected"), (202, "Collect"), (404, "NotFound")] == answers
    finally:
        sidecar.end()
        engine.kill()


@pytest.mark.parametrize(("arguments", "expected"), [([], 2), (["GET", "/v1/status"], 1), (["GET", "/\n", ""], 1)])
def test_what_cannot_be_asked_ends_with_a_line_and_a_code(arguments: list[str], expected: int) -> None:
    """R-T03: no traceback."""
    asked = subprocess.run(
        [sys.executable, "-m", "membudget_sidecar.ask", *arguments], capture_output=True, text=True, check=False
    )
    assert (expected, 1, "") == (asked.returncode, len(asked.stderr.splitlines()), asked.stdout)
