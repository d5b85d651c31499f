"""The leak detector inside the engine, switched and asked through the local API.

Covers: on and off, snapshots, findings, the search for reference cycles. Nothing is decided here, and suspicion from
outside needs none of it (`/v1/leaks` of `local_status`).
"""

from __future__ import annotations

from typing import Final

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
from membudget_sidecar.serving.forwarding import EngineAsked
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.operations import Operation
from membudget_sidecar.serving.routing import Request, Route

SEARCH_SECONDS: Final = 10.0
"""A snapshot or a search for cycles looks at every object of the engine."""


class LocalLeakDetector:
    """Hands requests to the engine; the paths are those of its control socket."""

    def __init__(self, served: Served) -> None:
        self._engine = EngineAsked(served.settings.control_socket, SEARCH_SECONDS)

    def operations(self) -> tuple[Operation, ...]:
        """All of them."""
        return (
            Operation(
                Route("GET", LEAK_DETECTOR_PATH, self.findings, waits=True),
                "What grew in the engine since its leak detector was switched on.",
                LeakFindings,
            ),
            Operation(
                Route("PUT", LEAK_DETECTOR_PATH, self.watch, waits=True),
                "Switch the engine's leak detector on or off.",
                LeakFindings,
                takes=LeakWatch,
            ),
            Operation(
                Route("POST", LEAK_SNAPSHOTS_PATH, self.snapshot, waits=True),
                "Note under a label what the engine holds now.",
                HeapSnapshot,
                takes=SnapshotRequest,
                refusals=(409,),
            ),
            Operation(
                Route("POST", LEAK_CYCLES_PATH, self.cycles, waits=True),
                "Find and free objects of the engine that only hold each other; it stands still meanwhile.",
                CyclesFound,
            ),
        )

    def findings(self, _request: Request) -> LeakFindings:
        """GET /v1/leak-detector."""
        return self._engine.ask(lambda client: client.leak_findings())

    def watch(self, request: Request) -> LeakFindings:
        """PUT /v1/leak-detector."""
        wanted = decode_json(request.body, LeakWatch)
        return self._engine.ask(lambda client: client.watch_leaks(wanted))

    def snapshot(self, request: Request) -> HeapSnapshot:
        """POST /v1/leak-detector/snapshots."""
        asked = decode_json(request.body, SnapshotRequest)
        return self._engine.ask(lambda client: client.heap_snapshot(asked))

    def cycles(self, _request: Request) -> CyclesFound:
        """POST /v1/leak-detector/cycles."""
        return self._engine.ask(lambda client: client.reference_cycles())
