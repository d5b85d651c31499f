"""The sidecar's HTTP server: one thread, one selector, few connections, and a clock on each of them.

Covers: accepting, reading, writing, time limits, who gives way when all connections are taken, ending. Does not cover
HTTP itself (`http_exchange`), routes (`routing`), handlers that wait (`waiting_handlers`) nor where it listens
(`listeners`). Why it is our own over h11 and no framework: docs/decisions/0010.

What a peer can hold: one of 32 connections of its face until another wants it, 5 s for the head, 5 s for the body, 5 s
for taking the answer, and together with all others 512 KiB of memory. So slow peers cannot hold out a scrape.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import os
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from membudget_sidecar.serving.answers import Answer, problem
from membudget_sidecar.serving.http_exchange import Asked, HttpExchange
from membudget_sidecar.serving.routing import Routes, answer
from membudget_sidecar.serving.waiting_handlers import WaitingHandlers

MAX_CONNECTIONS: Final = 32
"""Of one face: a flood on the pod network leaves the local API alone."""
MAX_HELD_BYTES: Final = 512 * 1024
"""Of all requests together that are not whole yet: two of the longest orders."""
STEP_SECONDS: Final = 5.0
"""For the head, for the body, and for taking the answer."""
LINGER_SECONDS: Final = 1.0
LINGER_BYTES: Final = 1 << 20
"""Read and dropped behind an answer: a connection closed on unread data is reset, and the answer lost with it."""
STOP_SECONDS: Final = 1.0
"""For answers under way when the server ends."""

_PIECE_BYTES: Final = 16 * 1024
_ACCEPTS_IN_A_ROW: Final = 8

log = logging.getLogger(__name__)


class _Phase(enum.Enum):
    READING = enum.auto()
    ANSWERING = enum.auto()
    """A handler that may wait has it."""
    WRITING = enum.auto()
    ENDING = enum.auto()
    """The answer is out; what still comes is dropped."""


class _Face:
    """One listening socket, and its connections in the order in which they came."""

    def __init__(self, listening: socket.socket, routes: Routes) -> None:
        self.listening = listening
        self.routes = routes
        self.connections: dict[int, _Connection] = {}
        listening.settimeout(0)

    def accept(self) -> _Connection | None:
        try:
            accepted, _ = self.listening.accept()
        except OSError:  # nobody is waiting any more, or the peer left between the two calls
            return None
        accepted.settimeout(0)
        return _Connection(accepted, self)

    def first_to_give_way(self) -> _Connection | None:
        """The one that has been unfinished for longest; those whose answer goes out only after all others."""
        open_ones = [each for each in self.connections.values() if each.phase is not _Phase.ANSWERING]
        return min(open_ones, key=lambda each: each.phase is _Phase.WRITING, default=None)


class _Connection:
    def __init__(self, accepted: socket.socket, face: _Face) -> None:
        self.socket = accepted
        self.face = face
        self.phase = _Phase.READING
        self.deadline = time.monotonic() + STEP_SECONDS
        self.exchange = HttpExchange(face.routes, _peer_uid(accepted))
        self.out = bytearray()
        self.dropped = 0

    def enter(self, phase: _Phase, seconds: float) -> None:
        self.phase, self.deadline = phase, time.monotonic() + seconds

    def flush(self) -> None:
        """Send what the peer takes without waiting; raises OSError when it left."""
        with contextlib.suppress(BlockingIOError):
            del self.out[: self.socket.send(self.out)]


class HttpServer:
    """Serves in the thread that calls `serve`; `stop` and `run_soon` may come from anywhere."""

    def __init__(self, faces: Sequence[tuple[socket.socket, Routes]]) -> None:
        self._faces = [_Face(listening, routes) for listening, routes in faces]
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._soon: deque[Callable[[], None]] = deque()
        self._waiting = WaitingHandlers()
        self._ends_at: float | None = None
        self._ended = False

    def serve(self) -> None:
        """Until `stop`, and then until the answers under way are out, for `STOP_SECONDS` at most."""
        self._selector.register(self._wake, selectors.EVENT_READ)
        for face in self._faces:
            self._selector.register(face.listening, selectors.EVENT_READ, face)
        try:
            while not self._is_over():
                self._turn()
        finally:
            for connection in list(self._connections()):
                self._drop(connection)
            self._selector.close()
            self._ended = True
            if self._waiting.stop():  # else its thread may be about to wake us
                os.close(self._wake)

    def run_soon(self, call: Callable[[], None]) -> None:
        """Have it called in the serving thread; safe in a signal handler, which must not take locks."""
        if self._ended:  # a second SIGTERM comes when it likes
            return
        self._soon.append(call)
        with contextlib.suppress(BlockingIOError):  # the counter is full: it is awake
            os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """End serving; safe in a signal handler."""
        self.run_soon(self._begin_to_end)

    def _begin_to_end(self) -> None:
        if self._ends_at is not None:
            return
        self._ends_at = time.monotonic() + STOP_SECONDS
        for face in self._faces:
            self._selector.unregister(face.listening)
        for connection in list(self._connections()):
            if connection.phase in {_Phase.READING, _Phase.ENDING}:
                self._drop(connection)

    def _is_over(self) -> bool:
        if self._ends_at is None:
            return False
        return time.monotonic() >= self._ends_at or next(self._connections(), None) is None

    def _turn(self) -> None:
        ready = self._selector.select(self._seconds_left())
        # Those that are here before those that come: a whole request is never thrown out for a new connection.
        for key, _ in sorted(ready, key=lambda each: isinstance(each[0].data, _Face)):
            if isinstance(key.data, _Connection):
                self._carefully(key.data, self._serve_ready)
            elif isinstance(key.data, _Face):
                self._accept(key.data)
            else:
                os.eventfd_read(self._wake)
        while self._soon:
            self._soon.popleft()()
        self._end_late_ones()

    def _connections(self) -> Iterator[_Connection]:
        for face in self._faces:
            yield from face.connections.values()

    def _seconds_left(self) -> float | None:
        nearest = min((each.deadline for each in self._connections()), default=math.inf)
        if self._ends_at is not None:
            nearest = min(nearest, self._ends_at)
        return None if nearest == math.inf else max(0.0, nearest - time.monotonic())

    def _end_late_ones(self) -> None:
        now = time.monotonic()
        for connection in [each for each in self._connections() if each.deadline <= now]:
            if connection.phase is _Phase.READING:
                late = problem(408, "TooSlow", f"head and body arrive within {STEP_SECONDS:.0f} seconds each")
                self._carefully(connection, partial(self._send, answer=late))
            else:
                self._drop(connection)

    def _accept(self, face: _Face) -> None:
        for _ in range(_ACCEPTS_IN_A_ROW):
            connection = face.accept()
            if connection is None:
                return
            if len(face.connections) >= MAX_CONNECTIONS:
                slowest = face.first_to_give_way()
                if slowest is None:
                    connection.socket.close()
                    continue
                self._drop(slowest)
            face.connections[connection.socket.fileno()] = connection
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._carefully(connection, self._serve_ready)  # most have sent their request by now

    def _carefully(self, connection: _Connection, act: Callable[[_Connection], None]) -> None:
        """One connection's trouble is its own."""
        try:
            act(connection)
        except BlockingIOError:
            return
        except (OSError, EOFError):
            self._drop(connection)
        except Exception:  # a defect here must not end the others
            log.exception("serving a connection failed")
            self._drop(connection)

    def _serve_ready(self, connection: _Connection) -> None:
        if connection.socket.fileno() < 0:  # gave way in this very turn
            return
        match connection.phase:
            case _Phase.READING:
                self._read(connection)
            case _Phase.WRITING:
                self._write(connection)
            case _Phase.ENDING:
                self._drain(connection)
            case _Phase.ANSWERING:
                pass

    def _read(self, connection: _Connection) -> None:
        exchange, in_body = connection.exchange, connection.exchange.in_body
        said = exchange.receive(connection.socket.recv(_PIECE_BYTES))
        if isinstance(said, Answer):
            self._send(connection, said)
        elif said is not None:
            self._answer(connection, said)
        else:
            connection.socket.send(exchange.interim)
            exchange.interim = b""
            if exchange.in_body and not in_body:
                connection.enter(_Phase.READING, STEP_SECONDS)
            self._bound_held_bytes()

    def _bound_held_bytes(self) -> None:
        reading = [each for each in self._connections() if each.phase is _Phase.READING]
        held = sum(each.exchange.held_bytes for each in reading)
        while held > MAX_HELD_BYTES:
            slowest = min(reading, key=lambda each: each.deadline)
            reading.remove(slowest)
            held -= slowest.exchange.held_bytes
            self._drop(slowest)

    def _answer(self, connection: _Connection, asked: Asked) -> None:
        if not asked.route.waits:
            self._send(connection, answer(*asked))
            return

        def answered(said: Answer) -> None:
            self.run_soon(lambda: self._carefully(connection, partial(self._send, answer=said)))

        if self._waiting.take(asked, answered):
            connection.enter(_Phase.ANSWERING, math.inf)
            self._selector.unregister(connection.socket)
        else:
            self._send(
                connection, problem(503, "Busy", "too much waits for the disk; come again", {"Retry-After": "1"})
            )

    def _send(self, connection: _Connection, answer: Answer) -> None:
        was_answering = connection.phase is _Phase.ANSWERING
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        connection.out += connection.exchange.bytes_of(answer, date)
        connection.enter(_Phase.WRITING, STEP_SECONDS)
        register = self._selector.register if was_answering else self._selector.modify
        register(connection.socket, selectors.EVENT_WRITE, connection)
        self._write(connection)

    def _write(self, connection: _Connection) -> None:
        connection.flush()
        if not connection.out:
            connection.socket.shutdown(socket.SHUT_WR)
            connection.enter(_Phase.ENDING, LINGER_SECONDS)
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            self._drain(connection)

    def _drain(self, connection: _Connection) -> None:
        dropped = len(connection.socket.recv(_PIECE_BYTES))
        connection.dropped += dropped
        if not dropped or connection.dropped > LINGER_BYTES:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        if connection.face.connections.pop(connection.socket.fileno(), None) is None:
            return
        with contextlib.suppress(KeyError):  # one that is being answered is not registered
            self._selector.unregister(connection.socket)
        connection.socket.close()


def _peer_uid(accepted: socket.socket) -> int | None:
    if accepted.family != socket.AF_UNIX:
        return None
    _, uid, _ = struct.unpack("3i", accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid
