"""The programs a pod runs, started here: engine and sidecar, with folders of their own.

Covers: building the index, starting, waiting until ready, stopping, also when this process is killed. Does not
cover load (`agents`).
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0

_PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal a child gets when its parent dies."""


class StackFailed(Exception):
    """A program of the stack did not start, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Everything the demo writes, below one temporary folder."""

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
        """The policy file that is edited half-way."""
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
def temporary_folders() -> Generator[Folders]:
    """A folder for everything, removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="membudget-demo-"))
    try:
        yield Folders(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def build_index(folders: Folders, sources: list[str]) -> None:
    """Index the sources in a process of its own: what building peaks at is gone before serving starts."""
    arguments = [f"--source={source}" for source in sources]
    log = folders.root / "build.log"
    process = _start("membudget_engine", ["build", "--data", str(folders.data), *arguments], log)
    try:
        code = process.wait()
    finally:
        _stop(process)
    if code != 0:
        raise StackFailed(_failure("building the index", log))


@contextlib.contextmanager
def running_stack(folders: Folders) -> Generator[Stack]:
    """Engine and sidecar, ready; stopped at the end, by SIGKILL if they do not stop in time."""
    port, metrics_port = free_port(), free_port()
    engine_log, sidecar_log = folders.root / "engine.log", folders.root / "sidecar.log"
    run = str(folders.run)
    engine = _start(
        "membudget_engine",
        ["serve", "--data", str(folders.data), "--state", str(folders.root / "engine"), "--run", run,
         "--port", str(port)],
        engine_log,
    )  # fmt: skip
    try:
        sidecar = _start(
            "membudget_sidecar",
            ["--run", run, "--state", str(folders.root / "sidecar"), "--policy", str(folders.policy),
             "--port", str(metrics_port)],
            sidecar_log,
        )  # fmt: skip
        try:
            _wait_ready(engine, f"http://127.0.0.1:{port}/readyz", engine_log)
            _wait_ready(sidecar, f"http://127.0.0.1:{metrics_port}/readyz", sidecar_log)
            yield Stack(folders, engine, sidecar, port)
        finally:
            _stop(sidecar)
    finally:
        _stop(engine)


def _start(module: str, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches us, and we stop the programs in order.
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  no thread was started yet, and prctl takes no lock
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310
            return
        time.sleep(0.05)
    raise StackFailed(_failure("starting", log))


def _failure(what: str, log: Path) -> str:
    end = log.read_text(errors="replace").splitlines()[-5:]
    return f"{what} failed; the end of {log.name}:\n" + "\n".join(end)


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
