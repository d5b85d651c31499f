"""The paths of the control socket, and which refusal has which status.

Covers: each path of `membudget_contract.control_api` and `.leak_detector_api` with the method of the service behind
it. Does not cover HTTP (`control_server`) nor the work (`memory_runtime`).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol, TypeVar

from membudget_contract import control_api as api
from membudget_contract import leak_detector_api as leaks
from membudget_contract.decoding import decode_json
from membudget_contract.plan import Message
from membudget_runtime.errors import (
    DetectorOff,
    IdTaken,
    NoRoom,
    OverBaseLimit,
    RuntimeMemoryError,
    TooManyHeld,
    UnknownComponent,
    ValueTooLarge,
)
from membudget_runtime.interpreter.leak_detector import LeakDetector

StillAsked = Callable[[], bool]
Answer = Callable[[bytes, StillAsked], Message]
Asked = TypeVar("Asked", bound=Message)

STATUSES: Final[dict[type[RuntimeMemoryError], HTTPStatus]] = {
    NoRoom: HTTPStatus.SERVICE_UNAVAILABLE,
    OverBaseLimit: HTTPStatus.SERVICE_UNAVAILABLE,
    TooManyHeld: HTTPStatus.SERVICE_UNAVAILABLE,
    ValueTooLarge: HTTPStatus.INSUFFICIENT_STORAGE,
    IdTaken: HTTPStatus.CONFLICT,
    DetectorOff: HTTPStatus.CONFLICT,
    UnknownComponent: HTTPStatus.NOT_FOUND,
}
"""503 may be tried again; the others ask for another request."""


class ControlService(Protocol):
    """What the server calls; each method is one path.

    Those that wait for a turn ask `still_asked` when it came, and raise NoLongerAsked where it is False.
    """

    def report(self) -> api.Report:
        """GET /v1/report."""
        ...

    def apply(self, budgets: api.Budgets, still_asked: StillAsked) -> api.Freed:
        """PUT /v1/budgets."""
        ...

    def tell_room(self, room: api.Room) -> api.Accepted:
        """PUT /v1/room."""
        ...

    def free(self, request: api.FreeRequest, still_asked: StillAsked) -> api.Freed:
        """POST /v1/free."""
        ...

    def reload(self) -> api.Reloaded:
        """POST /v1/reload."""
        ...

    def persist(self) -> api.Persisted:
        """POST /v1/persist."""
        ...

    def allocate(self, asked: api.AllocationRequest) -> api.Granted:
        """POST /v1/allocations."""
        ...

    def release_allocation(self, grant_id: str) -> api.Released:
        """POST /v1/allocations/release."""
        ...

    def allocations(self) -> api.Allocations:
        """GET /v1/allocations."""
        ...

    def track(self, told: api.Track) -> api.Tracked:
        """POST /v1/tracked."""
        ...

    def release_tracked(self, tracked_id: str) -> api.Released:
        """POST /v1/tracked/release."""
        ...

    def tracked(self) -> api.TrackedList:
        """GET /v1/tracked."""
        ...

    @property
    def leaks(self) -> LeakDetector:
        """/v1/leak-detector and below."""
        ...


def routes(service: ControlService) -> dict[tuple[str, str], Answer]:
    """Method and path, and what answers."""
    return {
        ("GET", api.REPORT_PATH): lambda _body, _asked: service.report(),
        ("PUT", api.BUDGETS_PATH): lambda body, asked: service.apply(_read(body, api.Budgets), asked),
        ("PUT", api.ROOM_PATH): lambda body, _asked: service.tell_room(_read(body, api.Room)),
        ("POST", api.FREE_PATH): lambda body, asked: service.free(_read(body, api.FreeRequest), asked),
        ("POST", api.RELOAD_PATH): lambda body, _asked: _reloaded(service, _read(body, api.ReloadRequest)),
        ("POST", api.PERSIST_PATH): lambda _body, _asked: service.persist(),
        ("GET", api.ALLOCATIONS_PATH): lambda _body, _asked: service.allocations(),
        ("POST", api.ALLOCATIONS_PATH): lambda body, _asked: service.allocate(_read(body, api.AllocationRequest)),
        ("POST", api.ALLOCATIONS_RELEASE_PATH): lambda body, _asked: service.release_allocation(
            _read(body, api.AllocationRelease).id
        ),
        ("GET", api.TRACKED_PATH): lambda _body, _asked: service.tracked(),
        ("POST", api.TRACKED_PATH): lambda body, _asked: service.track(_read(body, api.Track)),
        ("POST", api.TRACKED_RELEASE_PATH): lambda body, _asked: service.release_tracked(
            _read(body, api.TrackRelease).id
        ),
        ("GET", leaks.LEAK_DETECTOR_PATH): lambda _body, _asked: service.leaks.findings(),
        ("PUT", leaks.LEAK_DETECTOR_PATH): lambda body, _asked: _watched(service, _read(body, leaks.LeakWatch)),
        ("POST", leaks.LEAK_SNAPSHOTS_PATH): lambda body, _asked: service.leaks.snapshot(
            _read(body, leaks.SnapshotRequest).label
        ),
        ("POST", leaks.LEAK_CYCLES_PATH): lambda _body, _asked: service.leaks.cycles(),
    }


def refusal(error: RuntimeMemoryError) -> tuple[int, str]:
    """Status and reason of a refusal; what has no status of its own is a failure of the runtime."""
    return STATUSES.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR), type(error).__name__


def _read(body: bytes, kind: type[Asked]) -> Asked:
    return decode_json(body, kind)


def _watched(service: ControlService, wanted: leaks.LeakWatch) -> leaks.LeakFindings:
    if wanted.on:
        service.leaks.start()
    else:
        service.leaks.stop()
    return service.leaks.findings()


def _reloaded(service: ControlService, _request: api.ReloadRequest) -> api.Reloaded:
    return service.reload()
