"""The sidecar's end of the control socket.

Covers: requests with time limits, one kept connection, the peer's pid as the kernel knows it. Does not cover what
to ask (`loop`, `actions`). One client belongs to one thread.
"""

from __future__ import annotations

import http.client
import socket
import struct
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from membudget_contract.control_api import (
    BUDGETS_PATH,
    FREE_PATH,
    REPORT_PATH,
    ROOM_PATH,
    Accepted,
    Budgets,
    Freed,
    FreeRequest,
    Problem,
    Report,
    Room,
)
from membudget_contract.plan import Message
from membudget_sidecar.errors import EngineRefused, EngineUnreachable

ACTION_SECONDS: Final = 10.0
"""An emergency eviction has 10 s (R-S04); anything longer counts as failed."""
QUESTION_SECONDS: Final = 2.0
MAX_ANSWER_BYTES: Final = 1 << 20

_ENDED_MEANWHILE: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)

Answer = TypeVar("Answer", bound=Message)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("engine", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ControlClient:
    """Asks one runtime over its socket; connects again by itself."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._connection: _UnixConnection | None = None

    def report(self) -> Report:
        """All figures of the runtime; raises EngineUnreachable, EngineRefused."""
        return self._ask("GET", REPORT_PATH, None, Report)

    def apply(self, budgets: Budgets) -> Freed:
        """Have new budgets held; raises EngineUnreachable, EngineRefused."""
        return self._ask("PUT", BUDGETS_PATH, budgets, Freed)

    def tell_room(self, room: Room) -> Accepted:
        """Tell the room; raises EngineUnreachable, EngineRefused."""
        return self._ask("PUT", ROOM_PATH, room, Accepted)

    def free(self, request: FreeRequest) -> Freed:
        """Have bytes given back; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", FREE_PATH, request, Freed)

    def peer_pid(self) -> int:
        """Pid of the process that listens, in our pid namespace; raises EngineUnreachable."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(self._seconds)
                probe.connect(str(self._path))
                credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError as error:
            raise EngineUnreachable(f"{self._path}: {error}") from None
        return struct.unpack("3i", credentials)[0]

    def close(self) -> None:
        """Drop the connection; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, message: Message | None, expected: type[Answer]) -> Answer:
        body = msgspec.json.encode(message) if message is not None else None
        try:
            try:
                status, content = self._exchange(method, path, body)
            except _ENDED_MEANWHILE:
                # A kept connection may have ended while nobody looked: the request was not read. Once more, anew.
                self.close()
                status, content = self._exchange(method, path, body)
            if status == http.client.OK:
                return msgspec.json.decode(content, type=expected)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            self.close()
            raise EngineUnreachable(f"{self._path} {path}: {error or type(error).__name__}") from None
        raise EngineRefused(_detail(content))

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = _UnixConnection(self._path, self._seconds)
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = self._connection.getresponse()
        content = response.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        return response.status, content


def _detail(content: bytes) -> str:
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except msgspec.DecodeError:
        return "the runtime refused without saying why"
    return f"{problem.reason}: {problem.detail}"
