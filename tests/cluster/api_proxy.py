"""A man in the middle between a controller and the API server: answers wrongly, late, or not to the end.

Covers: TLS on both sides with the API server's own certificate, requests one by one, watches passed on as they drip.
Which request meets which fault is the test's to say. Does not cover faults of the connection as such: the API server is
frozen or killed for those. Neighbours: `control_plane`, `controller_process` (its kubeconfig points here).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from cluster.control_plane import ControlPlane
from cluster.credentials import CONTROLLER

PORT: Final = 6444
_DROPPED: Final = frozenset({"transfer-encoding", "connection", "content-length"})
_PIECE: Final = 65536


@dataclass(frozen=True)
class Fault:
    """What becomes of one request instead of its answer."""

    status: int | None = None
    """Answered so, without the API server having heard of it."""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    cut: bool = False
    """The API server's answer ends in its middle; the request took effect."""
    delay_seconds: float = 0.0


Faults = Callable[[str, str], Fault | None]
"""From method and path."""


class ApiProxy:
    """Listens from entering to leaving; `faults` may be replaced at any time."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self.control_plane = control_plane
        self.faults: Faults = lambda _, __: None
        self.swallows_watches = False
        """What the API server says on a watch, those open included, is read and not passed on; nothing is closed."""
        self._port = 6443
        self._elsewhere: tuple[str, int] | None = None
        self._upstream: set[socket.socket] = set()
        self.requests: list[tuple[float, str, str]] = []
        """When (monotonic seconds), method, path."""
        self.kubeconfig = folder / "through-proxy.kubeconfig"
        self.context = ssl.create_default_context(cafile=control_plane.certificate)

    def __enter__(self) -> Self:
        written: dict[str, Any] = json.loads(self.control_plane.kubeconfig_for(CONTROLLER).read_text())
        written["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{PORT}"
        self.kubeconfig.write_text(json.dumps(written))
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def redirect(self, port: int, *, only: str | None = None) -> None:
        """To another API server from now on; what goes to the one before is broken off.

        As behind a load balancer, where `only` names requests that meet the other one: those whose path holds it.
        """
        if only is None:
            self._port, self._elsewhere = port, None
        else:
            self._elsewhere = only, port
        for open_one in list(self._upstream):
            with contextlib.suppress(OSError):
                open_one.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def upstream(self, path: str) -> Generator[http.client.HTTPSConnection]:
        """A connection to the API server of now."""
        port = self._elsewhere[1] if self._elsewhere and self._elsewhere[0] in path else self._port
        plain = self.control_plane.network.connect("127.0.0.1", port, 30.0)
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=self.context)
        self._upstream.add(plain)
        try:
            connection.sock = self.context.wrap_socket(plain, server_hostname="127.0.0.1")
            connection.sock.settimeout(None)  # a watch may be silent for minutes
            self._upstream.add(connection.sock)
            yield connection
        finally:
            self._upstream -= {plain, connection.sock}
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """TLS here, in this connection's own thread."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = cast("_Server", self.server).proxy.control_plane.certificate
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        """Closed here: the server knows only the socket beneath."""
        with contextlib.suppress(OSError):
            super().finish()
        self.request.close()

    def _pass_on(self) -> None:
        proxy = cast("_Server", self.server).proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = self.path.partition("?")[0]
        proxy.requests.append((time.monotonic(), self.command, path))
        fault = proxy.faults(self.command, path) or Fault()
        time.sleep(fault.delay_seconds)
        if fault.status is not None:
            self._refuse(fault)
            return
        with proxy.upstream(path) as upstream:
            upstream.request(self.command, self.path, body or None, dict(self.headers))
            self._answer(upstream.getresponse(), cut=fault.cut, swallows="watch=true" in self.path)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass_on  # noqa: N815

    def _refuse(self, fault: Fault) -> None:
        assert fault.status is not None
        self.send_response(fault.status)
        for name, value in {**fault.headers, "Content-Length": "2", "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def _answer(self, response: http.client.HTTPResponse, *, cut: bool, swallows: bool) -> None:
        """In chunks, as they come; one that is cut ends with its connection."""
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _DROPPED:
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = cut
        proxy = cast("_Server", self.server).proxy
        while piece := response.read1(_PIECE):
            if swallows and proxy.swallows_watches:
                continue
            sent = piece[: len(piece) // 2] if cut else piece
            self.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n")
            self.wfile.flush()
            if cut:
                return
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent."""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, proxy: ApiProxy) -> None:
        super().__init__(("127.0.0.1", PORT), _Handler, bind_and_activate=False)
        self.proxy = proxy
        self.socket.close()
        self.socket = proxy.control_plane.network.listen("127.0.0.1", PORT)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever is behind is killed or closes when it likes."""
