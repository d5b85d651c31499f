"""The sidecar's end of the control socket.

Covers: requests with a time limit for the whole answer, one kept connection, the peer's pid as the kernel knows it.
Does not cover what to ask (`engine_link`, `room`, `actions`). One client belongs to one thread.
"""

from __future__ import annotations

import http.client
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from membudget_contract.control_api import (
    ALLOCATIONS_PATH,
    ALLOCATIONS_RELEASE_PATH,
    BUDGETS_PATH,
    FREE_PATH,
    PERSIST_PATH,
    RELOAD_PATH,
    REPORT_PATH,
    ROOM_PATH,
    TRACKED_PATH,
    TRACKED_RELEASE_PATH,
    Accepted,
    AllocationRelease,
    AllocationRequest,
    Allocations,
    Budgets,
    Freed,
    FreeRequest,
    Granted,
    Persisted,
    Problem,
    Released,
    Reloaded,
    ReloadRequest,
    Report,
    Room,
    Track,
    Tracked,
    TrackedList,
    TrackRelease,
)
from membudget_contract.decoding import decode_json
from membudget_contract.leak_detector_api import (
    LEAK_CYCLES_PATH,
    LEAK_DETECTOR_PATH,
    LEAK_SNAPSHOTS_PATH,
    CyclesFound,
    HeapSnapshot,
    LeakFindings,
    LeakWatch,
    SnapshotRequest,
)
from membudget_contract.plan import Message
from membudget_sidecar.errors import EngineRefused, EngineUnreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ACTION_SECONDS: Final = 10.0
"""An emergency eviction has 10 s (R-S04); anything longer counts as failed."""
QUESTION_SECONDS: Final = 1.0
"""The loop itself waits for the answer: longer would cost it ten looks."""
MAX_ANSWER_BYTES: Final = 1 << 20

_ENDED_MEANWHILE: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)

Answer = TypeVar("Answer", bound=Message)


class _TimedSocket(socket.socket):
    """Ends reading at one deadline: a peer that sends a byte now and then cannot hold a request for ever."""

    deadline = float("inf")

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive, waiting no longer than until the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        return super().recv_into(buffer, nbytes, flags)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("engine")
        self._path = path
        self._seconds = seconds
        self._timed = _TimedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.used = False

    def connect(self) -> None:
        self._timed.settimeout(self._seconds)
        self._timed.connect(str(self._path))
        self.sock = self._timed

    def close(self) -> None:
        super().close()
        self._timed.close()  # also when it was never connected

    def exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Status and content of one answer; a connection that was closed is not opened again."""
        if self.used and self.sock is None:
            raise http.client.RemoteDisconnected("the engine closed the connection after its last answer")
        self._timed.settimeout(self._seconds)
        self._timed.deadline = time.monotonic() + self._seconds
        self.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = self.getresponse()
        content = response.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        self.used = True
        return response.status, content


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

    def reload(self) -> Reloaded:
        """Have it look again at what is on disk; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", RELOAD_PATH, ReloadRequest(), Reloaded)

    def persist(self) -> Persisted:
        """Have it write what a next life would restore; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", PERSIST_PATH, None, Persisted)

    def allocate(self, request: AllocationRequest) -> Granted:
        """Ask for leave to allocate; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", ALLOCATIONS_PATH, request, Granted)

    def release_allocation(self, request: AllocationRelease) -> Released:
        """An allocation has ended; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", ALLOCATIONS_RELEASE_PATH, request, Released)

    def allocations(self) -> Allocations:
        """The grants in force; raises EngineUnreachable, EngineRefused."""
        return self._ask("GET", ALLOCATIONS_PATH, None, Allocations)

    def track(self, request: Track) -> Tracked:
        """Count memory that is allocated already; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", TRACKED_PATH, request, Tracked)

    def release_tracked(self, request: TrackRelease) -> Released:
        """Memory that was tracked is freed; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", TRACKED_RELEASE_PATH, request, Released)

    def tracked(self) -> TrackedList:
        """What is tracked; raises EngineUnreachable, EngineRefused."""
        return self._ask("GET", TRACKED_PATH, None, TrackedList)

    def watch_leaks(self, wanted: LeakWatch) -> LeakFindings:
        """Switch the leak detector; raises EngineUnreachable, EngineRefused."""
        return self._ask("PUT", LEAK_DETECTOR_PATH, wanted, LeakFindings)

    def leak_findings(self) -> LeakFindings:
        """What grew; raises EngineUnreachable, EngineRefused."""
        return self._ask("GET", LEAK_DETECTOR_PATH, None, LeakFindings)

    def heap_snapshot(self, request: SnapshotRequest) -> HeapSnapshot:
        """Note what there is now; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", LEAK_SNAPSHOTS_PATH, request, HeapSnapshot)

    def reference_cycles(self) -> CyclesFound:
        """Find and free what only holds itself; raises EngineUnreachable, EngineRefused."""
        return self._ask("POST", LEAK_CYCLES_PATH, None, CyclesFound)

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
            status, content = self._exchange(method, path, body)
            if status == http.client.OK:
                return decode_json(content, expected)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            self.close()
            raise EngineUnreachable(f"{self._path} {path}: {error or type(error).__name__}") from None
        raise _refusal(status, content)

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._connection is not None:
            try:
                return self._connection.exchange(method, path, body)
            except _ENDED_MEANWHILE:
                # The kept connection ended while nobody looked: the request was not read. Once more, anew.
                self.close()
        self._connection = _UnixConnection(self._path, self._seconds)
        return self._connection.exchange(method, path, body)


def _refusal(status: int, content: bytes) -> EngineRefused:
    try:
        problem = decode_json(content, Problem)
    except msgspec.DecodeError:
        return EngineRefused(status, "Refused", "the runtime refused without saying why")
    return EngineRefused(status, problem.reason, problem.detail)
