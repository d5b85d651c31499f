"""A peer that keeps to no rule: raw bytes to either face of a sidecar process, and what comes back."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sidecar.exchanged import Answered, parsed
from sidecar.sidecar_process import Started

PATIENCE_SECONDS = 12.0
"""More than head, body and answer may take together with the linger."""


class Face(NamedTuple):
    """One face, and the path there that takes a body."""

    name: str
    post: str


class Peer:
    """Makes connections to one sidecar."""

    def __init__(self, started: Started) -> None:
        self._started = started

    def connect(self, face: str) -> socket.socket:
        """A connection to `local` or `network`."""
        if face == "network":
            return socket.create_connection(("127.0.0.1", self._started.port), PATIENCE_SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(self._started.folder / "sidecar.sock"))
        return connection

    def send(self, face: str, *pieces: bytes, half_close: bool = False) -> bytes:
        """All that comes back until the connection ends; that may be while we still send."""
        return self.stream(face, pieces, half_close=half_close)

    def stream(self, face: str, pieces: Iterable[bytes], *, half_close: bool = False) -> bytes:
        """The same for pieces that are made as they are sent."""
        with self.connect(face) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces:
                    connection.sendall(piece)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            return received(connection)

    def scrape(self) -> tuple[Answered, float]:
        """The metrics, and the seconds they took."""
        began = time.monotonic()
        answered = parsed(self.send("network", b"GET /metrics HTTP/1.1\r\nHost: pod\r\n\r\n"))
        return answered, time.monotonic() - began

    def resident_bytes(self) -> int:
        """VmRSS of the sidecar, read from outside."""
        return self._status("VmRSS") * 1024

    def open_files(self) -> int:
        """How many descriptors it has."""
        return len(list(Path(f"/proc/{self._started.process.pid}/fd").iterdir()))

    def _status(self, field: str) -> int:
        lines = Path(f"/proc/{self._started.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def received(connection: socket.socket) -> bytes:
    """Until the other side closes, or breaks off."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            content += piece
    return content


def status_of(content: bytes) -> int:
    """The status of the first answer; 0 when the connection was closed without one."""
    return int(content.split(b" ", 2)[1]) if content.startswith(b"HTTP/1.1 ") else 0
