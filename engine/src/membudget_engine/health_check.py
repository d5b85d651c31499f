"""`membudget-engine check`: whether an engine answers and is ready, told by an exit code to whoever runs containers.

Covers: one request to the engine's own /readyz and what its answer means. Does not cover what ready means: that is
`search_api`'s. It runs inside the engine's memory limit, every few seconds, so it brings nothing along: `http.client`
alone would double its memory.
"""

from __future__ import annotations

import socket
from typing import Final

CHECK_SECONDS: Final = 3.0
"""For connection and answer each; an engine under 20 agents answers within 50 ms."""
_MOST_LINE: Final = 256


def not_ready_because(host: str, port: int) -> str | None:
    """Why the engine at this address is not ready; None when it is."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), CHECK_SECONDS) as connection:
            connection.sendall(request.encode())
            with connection.makefile("rb") as answer:
                line = answer.readline(_MOST_LINE).decode("latin-1").strip()
    except OSError as error:
        return f"nobody answers at {host}:{port}: {error}"
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/1."):
        return f"what answers at {host}:{port} is no engine"
    return None if status.split(" ")[0] == "200" else f"the engine at {host}:{port} says {status}"
