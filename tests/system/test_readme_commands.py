"""The commands of the README, typed as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memory_cgroup import require

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECONDS = 120
PATIENT_CURL = 'curl() { command curl --silent --show-error --retry 60 --retry-delay 1 --retry-connrefused "$@"; }'
"""A person waits for an engine to be ready before they ask it."""
WAIT_FOR_THE_SIDECAR = "until command membudget status --run run > /dev/null 2>&1; do sleep 0.2; done"


def block_after(words: str) -> str:
    """The first block of commands behind these words."""
    found = re.search(r"```\n(.*?)```", README[README.index(words) :], re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.cgroup
def test_an_engine_and_a_sidecar_are_built_served_asked_and_ended(tmp_path: Path) -> None:
    """R-S12, R-T03: with the policy that stands above the commands; in a network of its own, the port is fixed."""
    require(os.geteuid() == 0, "a network namespace needs root")
    (tmp_path / "policy.yaml").write_text(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])
    commands = block_after("puts the commands into").replace("$PWD/.venv", str(ROOT / ".venv"))
    asked = commands.replace("membudget status", f"{WAIT_FOR_THE_SIDECAR}\nmembudget status", 1)
    script = f"set -em\nip link set lo up\n{PATIENT_CURL}\n{asked}\nwait || true"
    environment = os.environ | {"COLUMNS": "160", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["unshare", "--net", "bash", "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    expected = ['"hits":', "policy   retrieval", "ResidentSetSize", "engine   Connected", "stdlib"]
    assert (0, []) == (ran.returncode, [text for text in expected if text not in ran.stdout]), ran.stdout + ran.stderr
