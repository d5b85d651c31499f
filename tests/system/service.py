"""A service that holds what a test tells it to, in a cgroup, with a real sidecar beside it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from membudget_cli.programs import free_port
from membudget_cli.sidecar_client import SidecarClient, UnixSocket
from membudget_contract.sidecar_api import ActionKind, ActionRecord
from memory_cgroup import MemoryCgroup
from system.serving import START_SECONDS, holds_plan, until

PROCESS = Path(__file__).with_name("service_process.py")


@dataclass(frozen=True)
class RunningService:
    """The process, and its sidecar's local API."""

    process: subprocess.Popen[str]
    client: SidecarClient
    sidecar: subprocess.Popen[bytes]

    @contextlib.contextmanager
    def unseen(self) -> Generator[None]:
        """What is done within is over before the sidecar looks: else an action begun in between is judged by it."""
        self.sidecar.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.sidecar.send_signal(signal.SIGCONT)

    def tell(self, command: str) -> int:
        """One command of `service_process`; returns when it was carried out, with its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def acted(self) -> list[ActionRecord]:
        """What the ladder had done: everything but Resize and garbage collection, oldest first."""
        silent = {ActionKind.RESIZE, ActionKind.COLLECT}
        return [record for record in self.client.actions() if record.kind not in silent]


@contextlib.contextmanager
def running_service(cgroup: MemoryCgroup, folder: Path, policy_text: str) -> Generator[RunningService]:
    """Both running, the service holding the plan of that policy."""
    policy, run = folder / "policy.yaml", folder / "run"
    policy.write_text(policy_text)
    run.mkdir()
    process = cgroup.run(
        [sys.executable, str(PROCESS), str(folder / "service"), str(run / "engine.sock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    sidecar = subprocess.Popen(
        [sys.executable, "-m", "membudget_sidecar", f"--run={run}", f"--state={folder / 'sidecar'}",
         f"--policy={policy}", f"--port={free_port()}"]
    )  # fmt: skip
    try:
        service = RunningService(process, SidecarClient(UnixSocket(run / "sidecar.sock")), sidecar)
        until(lambda: holds_plan(service.client), START_SECONDS)
        yield service
    finally:
        sidecar.terminate()
        sidecar.wait(timeout=20)
        process.communicate(timeout=20)
