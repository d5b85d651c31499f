"""Programs that a command starts beside itself, and ends with itself.

Covers: starting one with a log, waiting until it answers, stopping it, also when this process is killed; free ports.
Does not cover which programs (`demo.stack`, `profile`).
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Final

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0

_LOG_LINES: Final = 5
_PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal a child gets when its parent dies."""


class ProgramFailed(Exception):
    """A program did not do what it was started for, with the end of its log."""


@contextlib.contextmanager
def running_module(module: str, arguments: Sequence[str], log: Path) -> Generator[subprocess.Popen[bytes]]:
    """A Python module of this installation as a process, with a log; stopped at the end.

    Enter it before any thread of this process starts. Ctrl-C waits while the process starts: none is left behind.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with log.open("wb") as output:
            process = _start(module, arguments, subprocess.DEVNULL, output, output)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield process
        finally:
            stop(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_talking(module: str, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """One with pipes to its standard input and from its output; what it complains of is in the log.

    Start it before any thread of this process.
    """
    with log.open("wb") as output:
        return _start(module, arguments, subprocess.PIPE, subprocess.PIPE, output)


def _start(
    module: str, arguments: Sequence[str], source: int, answers: IO[bytes] | int, complaints: IO[bytes]
) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches us, and we stop the programs in order.
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=source,
        stdout=answers,
        stderr=complaints,
        start_new_session=True,
        preexec_fn=_begin,  # noqa: PLW1509  no thread was started yet, and what it calls takes no lock
    )


def _begin() -> None:
    """In the new process: it ends with its parent, and hears SIGINT."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen[bytes]) -> None:
    """By SIGTERM, and by SIGKILL if it does not end in time."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until the address answers. Raises ProgramFailed when it ended before, or did not answer in time."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310
            return
        time.sleep(0.05)
    raise ProgramFailed(failure("starting", log))


def failure(what: str, log: Path) -> str:
    """What failed, with the end of the log."""
    end = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return f"{what} failed; the end of {log.name}:\n" + "\n".join(end)


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
