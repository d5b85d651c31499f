"""HTTP over a Unix socket: how the control socket and the sidecar's local API are spoken to.

Covers: the connection with which the CLI asks a sidecar. Does not cover paths and messages (`control_api`,
`sidecar_api`) nor servers. The sidecar asks the runtime over a connection of its own (`control_client`): there the
whole answer has one deadline and a bound on its bytes, while here each step has its time, which is a person's pace.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path


class UnixConnection(http.client.HTTPConnection):
    """A connection of the standard library to a path instead of a host; `seconds` bounds every step."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect; raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
