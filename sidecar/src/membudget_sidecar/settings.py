"""Settings of one sidecar process: folders, address, kernel roots.

Covers: what is fixed from start to end, and which pod this is. Does not cover the plan: it moves live (`plan_keeper`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from membudget_contract.errors import EnvironmentInvalid
from membudget_contract.orders import PodIdentity

DEFAULT_PORT: Final = 9465
DEFAULT_RUN_FOLDER: Final = Path("/run/membudget")
LOOPBACK: Final = "127.0.0.1"
POD_VARIABLES: Final = {f"MEMBUDGET_POD_{field.upper()}": field for field in ("namespace", "name", "uid")}
"""Variable -> field of the pod's identity."""


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """One sidecar."""

    run_folder: Path
    """Shared with the engine: `engine.sock` is its, `sidecar.sock` ours."""
    state_folder: Path
    """Own to this process: the last good plan."""
    policy_file: Path | None
    """File mode: the policy a person edits. Without it and without keys the last good plan holds."""
    host: str = LOOPBACK
    port: int = DEFAULT_PORT
    """/metrics, /healthz, /readyz; in controller mode /v1/order and /v1/report; nothing else."""
    api_port: int | None = None
    """Where the local API is read on loopback too; None is nowhere."""
    keys_folder: Path | None = None
    """Controller mode: the public keys of orders. Excludes a policy file: only one may say what holds."""
    observe: int | str | None = None
    """A process without a control socket, by its pid or its name: it is watched, and nothing is done."""
    recording: Path | None = None
    """Where looks and actions are written down, for `membudget replay`."""
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


def own_pod(environment: Mapping[str, str]) -> PodIdentity:
    """Which pod this is, as the downward API tells it.

    Raises:
        EnvironmentInvalid: names the first variable that is missing; orders could not be told from another pod's.
    """
    told: dict[str, str] = {}
    for variable, field in POD_VARIABLES.items():
        told[field] = environment.get(variable, "")
        if not told[field]:
            problem = f"is missing; with --keys it must hold metadata.{field} of the pod (downward API)"
            raise EnvironmentInvalid(variable, problem)
    return PodIdentity(**told)
