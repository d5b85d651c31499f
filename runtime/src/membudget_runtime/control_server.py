"""The control socket: HTTP over a Unix socket, served by threads of its own.

Covers: one server per socket, peers of the own uid only, nothing done for a peer that has gone. Does not cover the
paths (`control_routes`), the work behind them (`reclaim`, `report`) nor any network port. The standard library's
server: it keeps answering while the engine's event loop is busy, and costs no framework.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import socketserver
import struct
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import msgspec

from membudget_contract import CONTRACT_VERSION
from membudget_contract.control_api import Problem
from membudget_contract.plan import Message
from membudget_runtime.control_routes import Answer, ControlService, refusal, routes
from membudget_runtime.errors import AlreadyServed, NoLongerAsked, RuntimeMemoryError

MAX_BODY_BYTES: Final = 256 * 1024
IDLE_SECONDS: Final = 30.0
CONNECTIONS: Final = 8
"""At once; the sidecar needs two, one for a long action and one beside it. Idle ones give way to new ones."""
CLOSE_SECONDS: Final = 0.1
"""In which the server sees that it is to end; looking costs 0.02 % of a core."""
BACKLOG: Final = 64
"""A Unix socket whose queue is full refuses at once, so it holds more than come in while one is accepted."""


class ControlServer:
    """Listens from construction to `close`."""

    def __init__(self, path: Path, service: ControlService) -> None:
        """Take the socket.

        Raises:
            AlreadyServed: another live process holds it.
            OSError: the folder is missing or not writable.
        """
        self._lock_file = _lock(path.with_name(path.name + ".lock"))
        self._path = path
        try:
            path.unlink(missing_ok=True)
            self._server = _Server(path, routes(service))
            path.chmod(0o660)
        except OSError:
            os.close(self._lock_file)
            raise
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": CLOSE_SECONDS},
            name="control-socket",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.shutdown()
        self._server.connections.end_all()
        self._server.server_close()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._lock_file)


def _lock(path: Path) -> int:
    """A lock that ends with its process: a stale socket file of a killed engine never stands in the way."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise AlreadyServed(f"another process serves {path.with_suffix('')}; one engine per control socket") from None
    return descriptor


class _Connections:
    """At most so many at once; when all are taken, the one that is idle longest gives way to a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[socket.socket, None] = {}
        self._busy: set[socket.socket] = set()

    def enter(self, connection: socket.socket) -> bool:
        """A new connection; False when all others are at work."""
        with self._lock:
            if len(self._idle) + len(self._busy) >= CONNECTIONS:
                if not self._idle:
                    return False
                self._end(next(iter(self._idle)))
            self._idle[connection] = None
        return True

    def begin(self, connection: socket.socket) -> bool:
        """A whole request has come; False when the connection has just given way."""
        with self._lock:
            if connection not in self._idle:
                return False
            del self._idle[connection]
            self._busy.add(connection)
        return True

    def finish(self, connection: socket.socket) -> None:
        """The request was answered."""
        with self._lock:
            if connection in self._busy:
                self._busy.remove(connection)
                self._idle[connection] = None

    def leave(self, connection: socket.socket) -> None:
        """The connection is closed."""
        with self._lock:
            self._idle.pop(connection, None)
            self._busy.discard(connection)

    def end_all(self) -> None:
        """Let every connection end; answers under way are lost."""
        with self._lock:
            for connection in (*self._idle, *self._busy):
                self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        self._idle.pop(connection, None)
        self._busy.discard(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = BACKLOG

    def __init__(self, path: Path, routes: dict[tuple[str, str], Answer]) -> None:
        self.routes = routes
        self.connections = _Connections()
        super().__init__(str(path), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Only root and the own uid may move budgets; and only so many at once."""
        del client_address
        credentials = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        return uid in {0, os.getuid()} and self.connections.enter(request)

    def shutdown_request(self, request: Any) -> None:
        """Every connection ends here, refused ones too."""
        self.connections.leave(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is no event; everything else is answered as a Problem before it gets here."""
        del request, client_address


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "membudget-runtime"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = False
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]  always constructed by _Server

    def do_GET(self) -> None:
        """Answer a question."""
        self._answer("GET")

    def do_PUT(self) -> None:
        """Answer a change of bounds."""
        self._answer("PUT")

    def do_POST(self) -> None:
        """Answer a request to free bytes."""
        self._answer("POST")

    def address_string(self) -> str:
        """Peers of a Unix socket have no address."""
        return "control-socket"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are counted by who acts on them, not logged one by one."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses, as a line that is no HTTP."""
        del explain
        self.close_connection = True
        self._problem(code, "Invalid", message or "no request of HTTP/1.1")

    def _answer(self, method: str) -> None:
        route = self.server.routes.get((method, self.path))
        length = self.headers.get("Content-Length", "0")
        if route is None:
            self.close_connection = True
            self._problem(404, "NotFound", f"no {method} {self.path} on the control socket")
        elif not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._problem(413, "TooLarge", f"bodies have a Content-Length of at most {MAX_BODY_BYTES} bytes")
        else:
            body = self.rfile.read(int(length))
            if self.server.connections.begin(self.connection):
                self._act(route, body)
                self.server.connections.finish(self.connection)
            else:
                self.close_connection = True

    def _act(self, route: Answer, body: bytes) -> None:
        if not self._still_asked():
            self.close_connection = True
            return
        try:
            message = route(body, self._still_asked)
        except NoLongerAsked:
            self.close_connection = True
        except (msgspec.DecodeError, RecursionError) as error:
            self._problem(400, "Invalid", str(error))
        except RuntimeMemoryError as error:
            self._problem(*refusal(error), str(error))
        except MemoryError:
            self._problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "OutOfMemory", "the process got no memory for this; try again"
            )
        except Exception as error:  # noqa: BLE001  the socket must answer whatever an action met
            self._problem(500, type(error).__name__, str(error))
        else:
            self._send(200, message)

    def _still_asked(self) -> bool:
        """Whether the peer has not hung up; one that only ended its sending side still waits for the answer."""
        poll = select.poll()
        poll.register(self.connection, 0)
        return not poll.poll(0)

    def _problem(self, status: int, reason: str, detail: str) -> None:
        self._send(status, Problem(title="Control request refused", status=status, reason=reason, detail=detail))

    def _send(self, status: int, message: Message) -> None:
        body = msgspec.json.encode(message)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Membudget-Contract", CONTRACT_VERSION)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
