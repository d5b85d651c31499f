"""A real engine, with a real sidecar beside it, for system tests: started, asked, measured from outside."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membudget_cli.demo.agents import HITS, Agents
from membudget_cli.demo.trace import Query, distinct_queries, skewed
from membudget_cli.programs import free_port
from membudget_cli.sidecar_client import SidecarClient, UnixSocket
from membudget_contract.sidecar_api import Status
from membudget_engine.ingest.python_source import standard_library_root

START_SECONDS = 30.0

POLICY = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {name: test}
spec:
  budget: {total: 150Mi, signal: ResidentSetSize}
"""

Launch = Callable[[Sequence[str]], "subprocess.Popen[Any]"]


@dataclass(frozen=True)
class Serving:
    """What is running."""

    engine: subprocess.Popen[Any]
    port: int
    client: SidecarClient

    def metrics(self) -> dict[str, float]:
        """The engine's samples by their name with labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


@contextlib.contextmanager
def serving(
    data: Path, folder: Path, launch: Launch, policy_text: str = POLICY, user: Sequence[str] = ()
) -> Generator[Serving]:
    """Engine (started by `launch`, as in a cgroup) and sidecar in file mode, the engine holding the file's plan.

    `user` comes before both commands, as a `setpriv` that gives them another uid.
    """
    policy, run = folder / "policy.yaml", folder / "run"
    policy.write_text(policy_text)
    port, metrics_port = free_port(), free_port()
    engine = launch(
        [*user, sys.executable, "-m", "membudget_engine", "serve", f"--data={data}", f"--state={folder / 'engine'}",
         f"--run={run}", f"--port={port}"]
    )  # fmt: skip
    sidecar = subprocess.Popen(
        [*user, sys.executable, "-m", "membudget_sidecar", f"--run={run}", f"--state={folder / 'sidecar'}",
         f"--policy={policy}", f"--port={metrics_port}"]
    )  # fmt: skip
    try:
        stack = Serving(engine, port, SidecarClient(UnixSocket(run / "sidecar.sock")))
        until(lambda: _answers(port) and holds_plan(stack.client), START_SECONDS)
        yield stack
    finally:
        for process in (sidecar, engine):
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=20)


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, at most that long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


def stdlib_queries(count: int) -> list[Query]:
    """Distinct questions to the standard library."""
    return distinct_queries("stdlib", standard_library_root(), count)


def ask(port: int, queries: Sequence[Query], agents: int, hits: int = HITS) -> Agents:
    """Ask every query once, from so many agents at once; returns when all are answered or failed."""
    shares: list[Iterator[Query]] = [iter(queries[number::agents]) for number in range(agents)]
    asked = Agents(port, shares, pause_seconds=0.0, hits=hits)
    asked.start()
    asked.wait()
    return asked


def skewed_queries(queries: list[Query], seed: int, count: int) -> list[Query]:
    """A skewed trace of that length."""
    return list(itertools.islice(skewed(queries, seed), count))


def holds_plan(client: SidecarClient) -> bool:
    """Whether the sidecar has found the engine, and the engine has taken over its plan."""
    with contextlib.suppress(Exception):
        status: Status = client.status()
        return status.engine == "Connected" and any(
            record.kind == "Resize" and record.status in {"Done", "Effective"} for record in client.actions()
        )
    return False


def _answers(port: int) -> bool:
    with contextlib.suppress(urllib.error.URLError, OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
        return True
    return False
