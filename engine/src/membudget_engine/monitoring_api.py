"""`/monitoring/memory` and `/monitoring/memory/optimize`: an engine's memory for people, without a sidecar.

Covers: gathering the figures, a run by hand, and measuring it. Does not cover what the figures mean (`monitoring`), nor
the ladder, which needs nobody. A run gives back what costs nobody anything: expired entries, unreachable objects, free
pages of the heap.
"""

from __future__ import annotations

import gc
import statistics as median_of
import threading
import time
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.policy import Signal
from membudget_engine.caches.session_pool import MOST_SESSIONS
from membudget_engine.errors import MeasurementRunning
from membudget_engine.http_answers import json
from membudget_engine.http_operations import Operation
from membudget_engine.monitoring import (
    MemoryView,
    Optimized,
    SessionFigures,
    Statistics,
    cache_figures,
    recommendations,
)
from membudget_engine.rooms import Rooms
from membudget_engine.search_api import SearchApi
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.own_memory import OwnMemory

READINGS: Final = 3
"""Their median is a figure: one alone meets somebody else's allocation."""


class MonitoringApi:
    """The two routes; their work runs in the workers of the search API."""

    def __init__(self, runtime: MemoryRuntime, rooms: Rooms, search_api: SearchApi) -> None:
        self._runtime = runtime
        self._rooms = rooms
        self._search_api = search_api
        self._memory = OwnMemory()
        self._measuring = threading.Lock()
        self.operations = (
            Operation(
                "GET",
                "/monitoring/memory",
                self._view,
                "statistics, leaks, sessions, caches and what to change",
                MemoryView,
                refusals=(503,),
            ),
            Operation(
                "POST",
                "/monitoring/memory/optimize",
                self._optimize,
                "give back what costs nobody anything, and what that gave",
                Optimized,
                refusals=(409, 503),
            ),
        )

    def close(self) -> None:
        """Close the kernel's files."""
        self._memory.close()

    def view(self) -> MemoryView:
        """Everything at this moment."""
        now = self._statistics()
        leaks = self._runtime.leaks.findings()
        ceilings = self._runtime.ledger.bounds.ceilings
        caches = tuple(cache_figures(cache, ceilings) for cache in self._rooms.caches)
        sessions = self._rooms.sessions.kept
        return MemoryView(
            statistics=now,
            leaks=leaks,
            sessions=SessionFigures(
                sessions=len(sessions),
                most_sessions=MOST_SESSIONS,
                owned_bytes=sessions.owned_bytes(),
                ended_idle=sessions.counters.expirations,
                gave_way=sessions.counters.evictions,
            ),
            caches=caches,
            recommendations=recommendations(now, leaks, caches),
        )

    def optimize(self) -> Optimized:
        """Give back what costs nobody anything, and say what the kernel saw of it.

        Raises:
            MeasurementRunning: another run is being measured.
        """
        if not self._measuring.acquire(blocking=False):
            raise MeasurementRunning("a run is being measured: ask again when it has ended")
        try:
            started = time.monotonic()
            signal = self._runtime.ledger.bounds.signal
            before, resident_before = self._reading(signal), self._reading(Signal.RESIDENT_SET_SIZE)
            collected = _collected()
            freed = self._runtime.free(FreeRequest(means=Means.CLEANUP, target_bytes=0))
            after, resident_after = self._reading(signal), self._reading(Signal.RESIDENT_SET_SIZE)
            return Optimized(
                signal=signal,
                before_bytes=before,
                after_bytes=after,
                freed_bytes=None if before is None or after is None else before - after,
                resident_before_bytes=resident_before,
                resident_after_bytes=resident_after,
                expired_entries=freed.entries,
                collected_objects=_collected() - collected,
                took_seconds=time.monotonic() - started,
                problem=freed.problem,
            )
        finally:
            self._measuring.release()

    async def _view(self, _request: Request) -> Response:
        return json(msgspec.json.encode(await self._search_api.in_worker(self.view)))

    async def _optimize(self, _request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        return json(msgspec.json.encode(await self._search_api.in_worker(self.optimize)))

    def _statistics(self) -> Statistics:
        now = self._runtime.snapshot()
        return Statistics(
            signal=now.status.signal,
            signal_bytes=now.status.signal_bytes,
            resident_bytes=self._reading(Signal.RESIDENT_SET_SIZE),
            budget_bytes=now.status.budget_bytes,
            usage_ratio=now.status.usage_ratio,
            managed_bytes=now.breakdown.managed_bytes,
            unmanaged_bytes=now.breakdown.unmanaged_bytes,
            room_bytes=now.limits.room_bytes,
            enforced=now.status.enforced,
            refused=now.report.refused,
            evictions=now.report.evictions,
            gc=now.report.gc,
            components=now.breakdown.components,
        )

    def _reading(self, signal: Signal) -> int | None:
        readings = [self._memory.signal_bytes(signal) for _ in range(READINGS)]
        told = [reading for reading in readings if reading is not None]
        return median_of.median_low(told) if told else None


def _collected() -> int:
    """Objects that the garbage collector freed since the process began."""
    return sum(generation["collected"] for generation in gc.get_stats())
