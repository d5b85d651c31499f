"""Settings of one sidecar process: folders, address, kernel roots.

Covers: what is fixed from start to end. Does not cover the plan: it moves live (`plan_keeper`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_PORT: Final = 9465


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """One sidecar."""

    run_folder: Path
    """Shared with the engine: `engine.sock` is its, `sidecar.sock` ours."""
    state_folder: Path
    """Own to this process: the last good plan."""
    policy_file: Path | None
    """File mode: the policy a person edits. None waits for a controller's orders with the last good plan."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """/metrics, /healthz, /readyz and nothing else."""
    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")

    @property
    def control_socket(self) -> Path:
        """Where the engine's runtime listens."""
        return self.run_folder / "engine.sock"

    @property
    def api_socket(self) -> Path:
        """Where people and agents ask."""
        return self.run_folder / "sidecar.sock"
