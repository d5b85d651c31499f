"""A TCP port whose every connection is one to a Unix socket: for clients that only speak TCP."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any


class _Forward(socketserver.BaseRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there, contextlib.suppress(OSError):
            there.connect(str(self.server.path))
            back = threading.Thread(target=_copy, args=(there, self.request), daemon=True)
            back.start()
            _copy(self.request, there)
            back.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(("127.0.0.1", 0), _Forward)


@contextlib.contextmanager
def forwarded(path: Path) -> Generator[str]:
    """The URL under which that Unix socket answers."""
    with _Server(path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        address: Any = server.server_address
        yield f"http://127.0.0.1:{address[1]}"
        server.shutdown()
        thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source has no more to say, which the target is told."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
