"""What may listen at a pod's address instead of a sidecar: every way of answering that must not hurt the controller."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

Answer = Callable[[socket.socket], None]


def whole(text: str) -> Answer:
    """Exactly this, then the end."""
    return lambda connection: connection.sendall(text.replace("\n", "\r\n").encode("latin-1"))


def endless(connection: socket.socket) -> None:
    """A body of 1 GB, as fast as it is taken."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    for _ in range(1 << 14):
        connection.sendall(bytes(1 << 16))


def silent(connection: socket.socket) -> None:
    """Takes the request and says nothing."""
    time.sleep(4)
    connection.close()


def dripping(start: str, count: int = 50) -> Answer:
    """One byte every 0.2 s, so that no single read takes long; then nothing."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(start.replace("\n", "\r\n").encode())
        for _ in range(count):
            time.sleep(0.2)
            connection.sendall(b"x")
        silent(connection)

    return drip


@contextmanager
def listening(answer: Answer) -> Generator[tuple[int, list[bytes]]]:
    """The port, and the first bytes of every connection."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=converse, args=(connection,), daemon=True).start()

        def converse(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                requests.append(connection.recv(1 << 16))
                answer(connection)
                # Closed with something unread, a connection is reset, and the answer may be lost on the way.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], requests
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
