"""Where the sidecar listens: its Unix socket, its port on the pod network, and on request one more on loopback.

Covers: making and removing them, and refusing an address that is taken. Does not cover serving (`http_server`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Final

BACKLOG: Final = 1024
"""Connections that the kernel holds until they are accepted. Of a flood all are let in, and the slowest give way: were
this full, a client on the Unix socket would be told so at once instead."""
RECEIVE_BYTES: Final = 64 * 1024
"""The kernel's buffer for one connection: it is charged to this container too, and may grow to 6 MB by itself."""


@contextlib.contextmanager
def tcp_port(host: str, port: int, options: str) -> Generator[socket.socket]:
    """A listening port; `options` are the command line's that choose another.

    Raises:
        OSError: with the address, and what to do.
    """
    try:
        listening = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with {options}") from None
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        yield listening


@contextlib.contextmanager
def unix_socket(path: Path) -> Generator[socket.socket]:
    """A listening Unix socket, 0660: own uid and group.

    Raises:
        OSError: another sidecar serves it, or it cannot be made.
    """
    if _is_served(path):
        raise OSError(f"another sidecar serves {path}; one for each --run folder")
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o117)
    try:
        listening.bind(str(path))
    finally:
        os.umask(former)
    try:
        listening.listen(BACKLOG)
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


def _is_served(path: Path) -> bool:
    """Whether somebody listens; a killed sidecar leaves a file on which nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
