"""A real engine in a process of its own, asked over HTTP, stopped at the end of its with block."""

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

START_SECONDS = 30.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.01

_SERVING = re.compile(r"serving on 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes

    def json(self) -> Any:
        """The body decoded."""
        return msgspec.json.decode(self.body)


class EngineProcess:
    """`membudget-engine serve`; `folder` gets its state, its control socket and its log."""

    def __init__(
        self, data: Path, folder: Path, *, run: Path | None = None, port: int = 0, options: Sequence[str] = ()
    ) -> None:
        """Start it; `wait_until_serving` waits."""
        folder.mkdir(parents=True, exist_ok=True)
        self.run = run or folder / "run"
        self._log = folder / f"log-{time.monotonic_ns()}"
        argv = [sys.executable, "-m", "membudget_engine", "serve", "--port", str(port)]
        argv += ["--data", str(data), "--state", str(folder / "state"), "--run", str(self.run), *options]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, stdout=log, stderr=log, env={**os.environ, "MEMBUDGET_TOTAL": "150Mi"}
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """Everything it wrote."""
        return self._log.read_text()

    @property
    def port(self) -> int:
        """As it logged it."""
        match = _SERVING.search(self.log)
        assert match is not None, self.log
        return int(match[1])

    def wait_until_serving(self) -> Self:
        """Until it says so; fails when it ended instead."""
        wait_until(lambda: _SERVING.search(self.log) is not None or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return self

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)

    def ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """One request on a connection of its own."""
        connection = self.connect()
        try:
            return ask(connection, method, path, body)
        finally:
            connection.close()

    def search(self, query: str, *, collection: str = "small", hits: int = 5) -> Reply:
        """One query."""
        return self.ask("POST", "/v1/search", search_body(query, collection=collection, hits=hits))

    def terminate(self) -> int:
        """SIGTERM, and the exit code; fails when it takes longer than it may."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_SECONDS)


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request on this connection."""
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    return Reply(response.status, response.headers.get("content-type", ""), response.read())


def search_body(query: str, *, collection: str = "small", hits: int = 5) -> bytes:
    """The body of POST /v1/search."""
    return msgspec.json.encode({"collection": collection, "query": query, "hits": hits})


def wait_until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Looks again until the condition holds; fails at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(POLL_SECONDS)


def status_bytes(pid: int, field: str) -> int:
    """A field of /proc/<pid>/status, as the kernel shows it to another process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
