"""The programs a pod runs, started here: engine and sidecar, with folders of their own.

Covers: building the index, both programs from start to stop, and their folders. Does not cover a program's own start
and stop (`programs`) nor load (`agents`).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from membudget_cli.programs import ProgramFailed, failure, free_port, running_module, wait_ready


@dataclass(frozen=True, slots=True)
class Folders:
    """Everything that is written, below one temporary folder."""

    root: Path

    @property
    def data(self) -> Path:
        """Collections."""
        return self.root / "data"

    @property
    def run(self) -> Path:
        """Sockets."""
        return self.root / "run"

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.root / "policy.yaml"


@dataclass(frozen=True, slots=True)
class Stack:
    """A running engine and sidecar."""

    folders: Folders
    engine: subprocess.Popen[bytes]
    sidecar: subprocess.Popen[bytes]
    port: int

    @property
    def sidecar_socket(self) -> Path:
        """Where the sidecar answers."""
        return self.folders.run / "sidecar.sock"

    def restarts(self) -> int:
        """How many of the two ended and are not what was started any more."""
        return sum(process.poll() is not None for process in (self.engine, self.sidecar))


@contextlib.contextmanager
def temporary_folders(purpose: str = "demo") -> Generator[Folders]:
    """A folder for everything, removed at the end."""
    root = Path(tempfile.mkdtemp(prefix=f"membudget-{purpose}-"))
    try:
        yield Folders(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def build_index(folders: Folders, sources: list[str]) -> None:
    """Index the sources in a process of its own: what building peaks at is gone before serving starts."""
    arguments = [f"--source={source}" for source in sources]
    log = folders.root / "build.log"
    with running_module("membudget_engine", ["build", "--data", str(folders.data), *arguments], log) as process:
        code = process.wait()
    if code != 0:
        raise ProgramFailed(failure("building the index", log))


@contextlib.contextmanager
def running_stack(folders: Folders, trees: Sequence[str] = ()) -> Generator[Stack]:
    """Engine and sidecar, ready; stopped at the end, by SIGKILL if they do not stop in time.

    `trees`: NAME=PATH of collections whose files are served as well.
    """
    port, metrics_port = free_port(), free_port()
    engine_log, sidecar_log = folders.root / "engine.log", folders.root / "sidecar.log"
    run = str(folders.run)
    serving = ["serve", "--data", str(folders.data), "--state", str(folders.root / "engine"), "--run", run]
    serving += ["--port", str(port), *(f"--source={tree}" for tree in trees)]
    watching = ["--run", run, "--state", str(folders.root / "sidecar"), "--policy", str(folders.policy)]
    watching += ["--port", str(metrics_port)]
    with (
        running_module("membudget_engine", serving, engine_log) as engine,
        running_module("membudget_sidecar", watching, sidecar_log) as sidecar,
    ):
        wait_ready(engine, f"http://127.0.0.1:{port}/readyz", engine_log)
        wait_ready(sidecar, f"http://127.0.0.1:{metrics_port}/readyz", sidecar_log)
        yield Stack(folders, engine, sidecar, port)
