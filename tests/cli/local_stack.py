"""A sidecar beside a fake engine whose memory is real, and the command line that asks it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sidecar.fake_engine import FakeEngine
from sidecar.hand_driven import policy_text
from sidecar.sidecar_process import Started

COMMAND = [sys.executable, "-m", "membudget_cli"]
MIB = 1 << 20


class LocalStack:
    """Engine and sidecar in one run folder, ended with the block."""

    def __init__(self, folder: Path, mode: str = "Enforce") -> None:
        self.folder = folder
        (folder / "policy.yaml").write_text(policy_text(thresholds={"collect": {"percent": 100}}, mode=mode))
        self.engine = FakeEngine(folder).start()
        self.engine.hold_managed(20 * MIB)
        self.sidecar = Started(folder, "--policy", str(folder / "policy.yaml"))
        self.sidecar.until(engine="Connected", policy="by-hand")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command against this stack, in a wide terminal."""
        return run(*arguments, "--run", str(self.folder))

    def end(self) -> None:
        """Sidecar first."""
        self.sidecar.end()
        self.engine.kill()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command."""
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, env=environment)
