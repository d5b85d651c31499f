"""An engine that is only its control socket, and memory that the kernel really charges and takes back.

Run as a program it serves the contract of `control_api` on a Unix socket and obeys lines of JSON on its standard
input; `FakeEngine` starts it and is the test's end. Each path can be set to a mode: `works`, `claims` (says it freed
everything and keeps it all), `refuses`, `hangs`, `garbage`, `huge` (an answer of 2 MB), `drips` (a byte now and then
for ever), `hangs up` (no answer at all).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from membudget_contract.control_api import (
    BUDGETS_PATH,
    PERSIST_PATH,
    RELOAD_PATH,
    REPORT_PATH,
    ROOM_PATH,
    Accepted,
    Budgets,
    CollectionReport,
    ComponentReport,
    Freed,
    FreeRequest,
    GcReport,
    Persisted,
    Problem,
    Reloaded,
    Report,
    Room,
)
from membudget_contract.plan import Message
from membudget_contract.policy import Priority

MIB = 1 << 20
DEADLINE_SECONDS = 10.0


def eventually(met: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Poll until it is so; fails naming what did not come."""
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.005)


class FakeEngine:
    """The test's end of one engine process; `start` again after `kill` is a restart. `launch` is called as Popen is."""

    def __init__(self, run_folder: Path, launch: Callable[..., subprocess.Popen[Any]] = subprocess.Popen) -> None:
        self.socket = run_folder / "engine.sock"
        self._launch = launch
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Returns once it listens."""
        argv = [sys.executable, __file__, str(self.socket)]
        self._process = self._launch(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "listening"
        return self

    @property
    def pid(self) -> int:
        """Of the process that listens."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: the socket file stays behind, as with a real one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    @contextlib.contextmanager
    def frozen(self) -> Any:
        """Stopped by SIGSTOP inside the block."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def resident(self) -> int:
        """Bytes, as the kernel says."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * mmap.PAGESIZE

    def hold_managed(self, amount: int) -> None:
        """Own that many bytes more, which `free` gives back."""
        self._command("managed", amount)

    def fill_to(self, resident: int) -> None:
        """Grow unmanaged bytes until the process has that resident set, or let them go until it has."""
        self._command("fill", resident)

    def set_mode(self, path: str, mode: str) -> None:
        """How requests to a path are answered from now on."""
        self._command("mode", [path, mode])

    def set_critical(self, amount: int) -> None:
        """What the report says of Critical data."""
        self._command("critical", amount)

    def set_components(self, count: int) -> None:
        """Report that many components."""
        self._command("components", count)

    def set_collections(self, count: int) -> None:
        """Report that many collections, the first ones larger."""
        self._command("collections", count)

    def connections(self) -> int:
        """How many were opened since it started."""
        return cast("int", self._command("connections", None))

    def requests(self, path: str) -> list[dict[str, Any]]:
        """The bodies received on a path, oldest first."""
        log = cast("list[tuple[str, dict[str, Any]]]", self._command("log", None))
        return [body for asked, body in log if asked == path]

    def _command(self, name: str, argument: object) -> object:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, argument]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> object:
        assert self._process is not None
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or '"the fake engine died"')


class _Engine:
    """Memory in blocks of one MiB, each a mapping of its own, so that letting one go shows at once."""

    def __init__(self) -> None:
        self.modes: dict[str, str] = {}
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.plan_hash: str | None = None
        self.connections = 0
        self.critical = 0
        self.component_count = 1
        self.collection_count = 0
        self._lock = threading.Lock()
        self._managed: list[mmap.mmap] = []
        self._unmanaged: list[mmap.mmap] = []

    def command(self, name: str, argument: Any) -> object:
        if name == "managed":
            _grow(self._managed, argument)
        elif name == "fill":
            while self._unmanaged and _resident() > argument:
                self._unmanaged.pop().close()
            _grow(self._unmanaged, argument - _resident())
        elif name == "mode":
            self.modes[argument[0]] = argument[1]
        elif name == "critical":
            self.critical = argument
        elif name == "components":
            self.component_count = argument
        elif name == "collections":
            self.collection_count = argument
        return {"log": self.log, "connections": self.connections}.get(name, "done")

    def answer(self, path: str, body: bytes) -> Message:
        with self._lock:
            if path == REPORT_PATH:
                return self._report()
            if path == ROOM_PATH:
                msgspec.json.decode(body, type=Room)
                return Accepted()
            if path == BUDGETS_PATH:
                self.plan_hash = msgspec.json.decode(body, type=Budgets).plan_hash
                return self._freed(0)
            if path == RELOAD_PATH:
                return Reloaded(observers=(), changed=False, problem=None)
            if path == PERSIST_PATH:
                return Persisted(entries=len(self._managed), written_bytes=0, problem=None)
            request = msgspec.json.decode(body, type=FreeRequest)
            claims = self.modes.get(path) == "claims"
            return self._claimed(request.target_bytes) if claims else self._freed(request.target_bytes)

    def _freed(self, target: int) -> Freed:
        before, entries = len(self._managed) * MIB, 0
        while self._managed and entries * MIB < target:
            self._managed.pop().close()
            entries += 1
        return Freed(
            owned_before_bytes=before,
            owned_after_bytes=len(self._managed) * MIB,
            entries=entries,
            collections={"default": entries * MIB},
            exhausted=not self._managed,
        )

    def _claimed(self, target: int) -> Freed:
        return Freed(
            owned_before_bytes=target, owned_after_bytes=0, entries=7, collections={"default": target}, exhausted=False
        )

    def _report(self) -> Report:
        managed = len(self._managed) * MIB
        parts = [
            ComponentReport(
                name=f"part{number}" if number else "semanticCache",
                owned_bytes=0 if number else managed,
                mapped_bytes=None,
                budget_bytes=None,
                entries=len(self._managed),
                evictable_bytes=managed,
                critical_bytes=0 if number else self.critical,
                spilled_bytes=0,
            )
            for number in range(self.component_count)
        ]
        return Report(
            pid=os.getpid(),
            managed_bytes=managed,
            room_bytes=None,
            plan_hash=self.plan_hash,
            refused=0,
            components=tuple(parts),
            collections=tuple(
                CollectionReport(
                    name=f"collection{number}",
                    component="semanticCache",
                    priority=Priority.MEDIUM,
                    owned_bytes=(self.collection_count - number) * MIB,
                    entries=1,
                )
                for number in range(self.collection_count)
            ),
            gc=GcReport(collections=0, collected=0),
        )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def _grow(blocks: list[mmap.mmap], amount: int) -> None:
    for _ in range(max(0, amount) // MIB):
        block = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, MIB, mmap.PAGESIZE):
            block[page] = 1
        blocks.append(block)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        engine = self.server.engine
        engine.log.append((self.path, json.loads(body or b"{}")))
        mode = engine.modes.get(self.path, "works")
        if mode == "hangs":
            threading.Event().wait()
        elif mode == "hangs up":
            self.close_connection = True
        elif mode == "drips":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                self.wfile.write(b"X")
                time.sleep(0.05)
        elif mode == "refuses":
            problem = Problem(title="Refused", status=503, reason="Busy", detail="not now")
            self._send(503, msgspec.json.encode(problem))
        else:
            self._send(200, _CONTENT.get(mode) or msgspec.json.encode(engine.answer(self.path, body)))

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


_CONTENT = {"garbage": b"\x00 no JSON", "huge": b'{"x": "' + b"x" * 2 * MIB + b'"}'}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 8  # as the runtime's: a frozen engine's backlog must fill here too

    def __init__(self, path: str, engine: _Engine) -> None:
        self.engine = engine
        super().__init__(path, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Everybody is welcome, and counted."""
        del request, client_address
        self.engine.connections += 1
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sidecar that gave up is no event."""


def main(path: str) -> None:
    """Serve until the standard input ends."""
    Path(path).unlink(missing_ok=True)
    engine = _Engine()
    threading.Thread(target=_Server(path, engine).serve_forever, daemon=True).start()
    sys.stdout.write('"listening"\n')
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(engine.command(*json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
