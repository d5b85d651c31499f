"""A real engine that writes, held by strace from before its first call, and what it must hold whatever ends it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from control_socket import ask as ask_control
from engine.engine_process import Reply, ask, search_body, wait_until
from engine.written import notes
from membudget_contract.control_api import RELOAD_PATH, Reloaded, ReloadRequest
from tracing import required_strace

_SERVING = re.compile(r"serving on 127\.0\.0\.1:(\d+)")
_ANSWER_SECONDS = 30.0


class Forks:
    """The process from which engines are forked; every engine it still has ends with its block."""

    def __init__(self) -> None:
        argv = [sys.executable, str(Path(__file__).with_name("forked_engines.py"))]
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
        self._server = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "MEMBUDGET_TOTAL": "1Gi"},
        )
        self._last: TracedEngine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._last.pid, signal.SIGKILL)
        self._server.kill()
        self._server.communicate()

    def engine(self, data: Path, own: Path) -> TracedEngine:
        """A new one, stopped before its first step; `own` gets its state, its socket and its log. One at a time."""
        assert self._server.stdin is not None
        own.mkdir(exist_ok=True)
        log = own / f"log-{time.monotonic_ns()}"
        self._server.stdin.write(f"{data} {own / 'state'} {own / 'run'} {log}\n")
        self._server.stdin.flush()
        self._last = TracedEngine(self._line(), own / "run" / "engine.sock", log, self)
        wait_until(lambda: _state(self._last_pid()) in "tT")
        return self._last

    def ended(self) -> int:
        """The wait status of the engine that was made last, when it has ended."""
        self._last, status = None, self._line()
        return status

    def _last_pid(self) -> int:
        assert self._last is not None
        return self._last.pid

    def _line(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


@dataclass(frozen=True)
class TracedEngine:
    """One engine, asked over HTTP."""

    pid: int
    control_socket: Path
    log: Path
    forks: Forks

    def go(self) -> bool:
        """Let it begin; whether it serves, or has ended before."""
        os.kill(self.pid, signal.SIGCONT)
        wait_until(lambda: bool(_SERVING.search(self.told())) or _state(self.pid) in "ZX")
        return bool(_SERVING.search(self.told()))

    def told(self) -> str:
        """Everything it wrote."""
        return self.log.read_text() if self.log.exists() else ""

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        port = _SERVING.search(self.told())
        assert port is not None
        return http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=_ANSWER_SECONDS)

    def ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """One request on a connection of its own; raises OSError, HTTPException."""
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, method, path, body)

    def holds(self, collection: str, numbers: range) -> dict[str, str]:
        """The source of each note with such a number that is there; all answers of the engine agree on them."""
        counts = {view["name"]: view["count"] for view in self.ask("GET", "/v1/collections").json()}
        found = dict[str, str]()
        with contextlib.closing(self.connect()) as connection:
            for number in numbers if collection in counts else ():
                reply = ask(connection, "GET", f"/v1/chunks/{collection}/note-{number}")
                if reply.status == http.client.OK:
                    found[f"note-{number}"] = reply.json()["source"]
        assert counts.get(collection, 0) == len(found)
        if found:
            hits = self.ask("POST", "/v1/search", search_body("note", collection=collection, hits=50)).json()["hits"]
            assert {hit["chunk"]["id"]: hit["chunk"]["source"] for hit in hits}.items() <= found.items()
        return found

    def reload(self) -> None:
        """Look for a newer generation, as a sidecar asks for it. Raises OSError, HTTPException."""
        ask_control(self.control_socket, "POST", RELOAD_PATH, Reloaded, ReloadRequest())

    def kill(self) -> int:
        """SIGKILL, and the wait status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.forks.ended()


@dataclass
class Promised:
    """What one collection holds: what was acknowledged, and the one write that was begun and not answered."""

    acknowledged: dict[str, str] = field(default_factory=dict[str, str])
    begun: dict[str, str] | None = None

    def upsert(self, engine: TracedEngine, collection: str, numbers: range, text: str) -> Reply:
        """Raises OSError, HTTPException: it may hold or not."""
        self.begun = {**self.acknowledged, **{f"note-{number}": f"{text} {number}" for number in numbers}}
        body = msgspec.json.encode({"chunks": notes(numbers, text)})
        return self._answered(engine.ask("POST", f"/v1/chunks/{collection}", body))

    def delete(self, engine: TracedEngine, collection: str, number: int) -> Reply:
        """Raises as `upsert`."""
        gone = f"note-{number}"
        self.begun = {chunk: text for chunk, text in self.acknowledged.items() if chunk != gone}
        return self._answered(engine.ask("DELETE", f"/v1/chunks/{collection}/{gone}"))

    def accepts(self, found: dict[str, str]) -> bool:
        """Whether all that was acknowledged is there, with the begun write whole or not at all; goes on from there."""
        if found == self.begun:
            self.acknowledged = found
        self.begun = None
        return found == self.acknowledged

    def _answered(self, reply: Reply) -> Reply:
        if reply.status == http.client.OK:
            assert self.begun is not None
            self.acknowledged, self.begun = self.begun, None
        return reply


@contextlib.contextmanager
def held_by_strace(pid: int, options: Sequence[str]) -> Generator[None]:
    """The process and all its threads, until the block ends; counts of calls begin at its beginning."""
    argv = [required_strace(), "-f", "-qq", *options, "-p", str(pid)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as strace:
        try:
            wait_until(lambda: strace.poll() is not None or _all_traced(pid))
            assert strace.poll() is None, f"{argv} ended: this machine does not let it trace"
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait()


def _all_traced(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)


def _state(pid: int) -> str:
    """One letter of proc(5); X when there is no such process any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
