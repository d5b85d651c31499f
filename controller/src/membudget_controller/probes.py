"""What Prometheus, people and the kubelet ask: /metrics, /v1/recommendations, /healthz, /readyz.

Covers: a small server of the standard library in threads of its own. Does not decide whether all is well: the caller
says so, and what there is to tell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, cast

REQUEST_SECONDS: Final = 5.0

Page = Callable[[], tuple[str, bytes]]
"""Content type and body, made when somebody asks."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        """A page or a probe."""
        server = cast("ProbeServer", self.server)
        page, check = server.pages.get(self.path), server.checks.get(self.path)
        if page is not None:
            self._answer(HTTPStatus.OK, *page())
        elif check is None:
            there_is = ", ".join([*server.pages, *server.checks])
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", f"there is {there_is}\n".encode())
        elif check():
            self._answer(HTTPStatus.OK, "text/plain", b"ok\n")
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"not now\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Probes come every few seconds and are not logged."""

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ProbeServer(ThreadingHTTPServer):
    """Serves from `start` to `stop`."""

    daemon_threads = True

    def __init__(
        self, host: str, port: int, pages: Mapping[str, Page], checks: Mapping[str, Callable[[], bool]]
    ) -> None:
        super().__init__((host, port), _Handler)
        self.pages = pages
        self.checks = checks

    def start(self) -> None:
        """In a thread of its own."""
        threading.Thread(target=self.serve_forever, name="probes", daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self.shutdown()
        self.server_close()
