"""Allocations and tracked memory, asked of the engine through the local API.

Covers: leave to allocate, memory that is counted by id, and giving either up. Nothing is decided here: the engine's
runtime grants and refuses, with its own words.
"""

from __future__ import annotations

from membudget_contract.control_api import (
    ALLOCATIONS_PATH,
    ALLOCATIONS_RELEASE_PATH,
    TRACKED_PATH,
    TRACKED_RELEASE_PATH,
    AllocationRelease,
    AllocationRequest,
    Allocations,
    Granted,
    Released,
    Track,
    Tracked,
    TrackedList,
    TrackRelease,
)
from membudget_contract.decoding import decode_json
from membudget_sidecar.acting.control_client import QUESTION_SECONDS
from membudget_sidecar.serving.forwarding import EngineAsked
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.operations import Operation
from membudget_sidecar.serving.routing import Request, Route


class LocalAllocations:
    """Hands requests to the engine; the paths are those of its control socket."""

    def __init__(self, served: Served) -> None:
        self._engine = EngineAsked(served.settings.control_socket, QUESTION_SECONDS)

    def operations(self) -> tuple[Operation, ...]:
        """All of them."""
        return (
            Operation(
                Route("GET", ALLOCATIONS_PATH, self.allocations, waits=True),
                "The grants in force, newest first.",
                Allocations,
            ),
            Operation(
                Route("POST", ALLOCATIONS_PATH, self.allocate, waits=True),
                "Ask for leave to allocate.",
                Granted,
                takes=AllocationRequest,
                refusals=(404, 409, 507),
            ),
            Operation(
                Route("POST", ALLOCATIONS_RELEASE_PATH, self.release_allocation, waits=True),
                "An allocation has ended.",
                Released,
                takes=AllocationRelease,
            ),
            Operation(
                Route("GET", TRACKED_PATH, self.tracked, waits=True),
                "Memory that is counted by id, newest first.",
                TrackedList,
            ),
            Operation(
                Route("POST", TRACKED_PATH, self.track, waits=True),
                "Count memory that is allocated already.",
                Tracked,
                takes=Track,
                refusals=(404, 409, 507),
            ),
            Operation(
                Route("POST", TRACKED_RELEASE_PATH, self.release_tracked, waits=True),
                "Memory that was counted is freed.",
                Released,
                takes=TrackRelease,
            ),
        )

    def allocations(self, _request: Request) -> Allocations:
        """GET /v1/allocations."""
        return self._engine.ask(lambda client: client.allocations())

    def allocate(self, request: Request) -> Granted:
        """POST /v1/allocations."""
        asked = decode_json(request.body, AllocationRequest)
        return self._engine.ask(lambda client: client.allocate(asked))

    def release_allocation(self, request: Request) -> Released:
        """POST /v1/allocations/release."""
        asked = decode_json(request.body, AllocationRelease)
        return self._engine.ask(lambda client: client.release_allocation(asked))

    def tracked(self, _request: Request) -> TrackedList:
        """GET /v1/tracked."""
        return self._engine.ask(lambda client: client.tracked())

    def track(self, request: Request) -> Tracked:
        """POST /v1/tracked."""
        asked = decode_json(request.body, Track)
        return self._engine.ask(lambda client: client.track(asked))

    def release_tracked(self, request: Request) -> Released:
        """POST /v1/tracked/release."""
        asked = decode_json(request.body, TrackRelease)
        return self._engine.ask(lambda client: client.release_tracked(asked))
