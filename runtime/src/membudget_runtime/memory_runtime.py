"""The runtime as one object: what a service creates at start and closes at its end.

Covers: putting ledger, caches, limiter, tracked allocations, spill folder, persisted entries, reload and control
socket together, and the last budgets kept on disk. Does not cover what the service itself holds: it registers
components. Its bounds hold from the first moment, without a sidecar: the kept budgets of its former life, else the
built-in Production profile refined by `MEMBUDGET_*`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from membudget_contract.control_api import (
    Accepted,
    AllocationRequest,
    Allocations,
    Budgets,
    Freed,
    FreeRequest,
    Granted,
    Persisted,
    Released,
    Reloaded,
    Report,
    Room,
    Track,
    Tracked,
    TrackedList,
)
from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept
from membudget_runtime.bounds import bounds_of, start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.component import Component
from membudget_runtime.control_server import ControlServer
from membudget_runtime.errors import NoLongerAsked
from membudget_runtime.ledger import Ledger
from membudget_runtime.limiter import CLEANUP_SECONDS, AllocationLimiter
from membudget_runtime.own_memory import Allocator, OwnMemory
from membudget_runtime.periodic import Periodic
from membudget_runtime.persistence import Persistence, Persistent
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.reloads import Observer, Reloads
from membudget_runtime.replacement import AdaptiveFifo, Replacement
from membudget_runtime.report import report
from membudget_runtime.request_times import RequestTimes
from membudget_runtime.spill import SpillStore
from membudget_runtime.tracking import TrackedAllocations

Key = TypeVar("Key", bound=Hashable)

KEPT_BUDGETS: Final = "budgets.kept"

log = logging.getLogger(__name__)


class MemoryRuntime:
    """Holds bytes inside bounds, and answers the sidecar.

    `state_folder` keeps the last budgets, spilled values and persisted entries; `environment` refines the start-up
    bounds.
    """

    def __init__(
        self, state_folder: Path, environment: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._kept = state_folder / KEPT_BUDGETS
        self._serial = threading.Lock()
        self._server: ControlServer | None = None
        state_folder.mkdir(parents=True, exist_ok=True)
        start = start_budgets(environment)
        self._memory, allocator = OwnMemory(), Allocator()
        allocator.use_one_arena()
        self.ledger = Ledger(bounds_of(start, start), memory=self._memory, allocator=allocator, clock=clock)
        self.limiter = AllocationLimiter(self.ledger, clock)
        self.tracking = TrackedAllocations(self.ledger)
        self._reclaimer = Reclaimer(self.ledger, start)
        self._reloads = Reloads()
        self._requests = RequestTimes(clock)
        self._persistence = Persistence(state_folder / "persisted", time.time)
        budgets = self._former() or start
        self._configured = budgets if budgets.live else start
        """The newest budgets that may configure a component."""
        self._reclaimer.apply(budgets)
        self.spill = SpillStore(state_folder / "spill", start.spill_max_bytes)
        self._cleanup = Periodic("stale-grants", CLEANUP_SECONDS, self.limiter.release_stale)

    def cache(
        self,
        name: str,
        *,
        ttl_seconds: float,
        extra_entry_bytes: int = 0,
        on_removed: Callable[[str, Key], None] = lambda _collection, _key: None,
        policy: type[Replacement[Any]] = AdaptiveFifo,
    ) -> BoundedCache[Key]:
        """A byte-bounded cache that counts as the component `name` and spills to this runtime's folder."""
        cache = BoundedCache(
            name,
            self.ledger,
            ttl_seconds=ttl_seconds,
            clock=self._clock,
            spill=self.spill,
            extra_entry_bytes=extra_entry_bytes,
            on_removed=on_removed,
            policy=policy,
        )
        cache.apply(self._configured)
        return cache

    def register(self, component: Component) -> str | None:
        """Take in a component of the service's own, and tell it what holds; why it cannot take it over, else None."""
        self.ledger.register(component)
        return component.apply(self._configured)

    def on_reload(self, name: str, observer: Observer) -> None:
        """Tell this observer of every reload; one that raises keeps what it has, and the others are told as well."""
        self._reloads.observe(name, observer)

    def on_persist(self, name: str, persistent: Persistent) -> int:
        """Persist these entries when asked to; how many of a former life were taken back just now."""
        return self._persistence.register(name, persistent)

    def observe_request(self, seconds: float) -> None:
        """A request of the service took so long. Costs about a microsecond; from any thread."""
        self._requests.observe(seconds)

    def serve(self, socket_path: Path) -> None:
        """Open the control socket.

        Raises:
            AlreadyServed: another live process holds it.
            OSError: its folder is missing or not writable.
        """
        self._server = ControlServer(socket_path, self)

    def close(self) -> None:
        """Close the control socket and the kernel's files: from here on the ceilings hold, the room is unknown."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cleanup.close()
        self._memory.close()

    def report(self) -> Report:
        """All figures at this moment."""
        return report(
            self.ledger,
            allocations_bytes=self.limiter.held_bytes,
            requests=self._requests.report(),
            restored=self._persistence.restored,
            set_aside=self._persistence.set_aside,
        )

    def apply(self, budgets: Budgets, still_asked: Callable[[], bool] = lambda: True) -> Freed:
        """Hold new budgets, come down to them, and keep them for the next life.

        Raises:
            NoLongerAsked: `still_asked` said so when the turn came.
        """
        with self._turn(still_asked):
            if budgets.live:
                self._configured = budgets
            freed = self._reclaimer.apply(budgets)
            try:
                write_kept(self._kept, budgets)
            except OSError as error:
                log.warning("budgets hold but were not kept in %s: %s", self._kept, error.strerror)
        return freed

    def tell_room(self, room: Room) -> Accepted:
        """Hold the sidecar's figure of the room while it is fresh."""
        self.ledger.tell_room(room.room_bytes)
        return Accepted()

    def free(self, request: FreeRequest, still_asked: Callable[[], bool] = lambda: True) -> Freed:
        """Give bytes back, one request at a time.

        Raises:
            NoLongerAsked: `still_asked` said so when the turn came.
        """
        with self._turn(still_asked):
            return self._reclaimer.free(request)

    def reload(self) -> Reloaded:
        """Tell the observers of `on_reload`, once for all who ask meanwhile; actions go on beside it.

        Raises:
            ReloadInside: an observer asked.
        """
        return self._reloads.run()

    def persist(self, seconds: float = math.inf) -> Persisted:
        """Write the entries of `on_persist` to the state folder, for so many seconds; actions go on beside it.

        Critical classes are written first, and in a class the most valuable entries: when the time runs out, what is on
        disk is good and worth most. Also of use after `close`, at the end of a process.
        """
        latest = self._clock() + seconds
        return self._persistence.persist(lambda: self._clock() < latest)

    def allocate(self, asked: AllocationRequest) -> Granted:
        """Leave to allocate; raises as `AllocationLimiter.request`."""
        return self.limiter.request(asked)

    def release_allocation(self, grant_id: str) -> Released:
        """The operation has ended."""
        return self.limiter.release(grant_id)

    def allocations(self) -> Allocations:
        """The grants in force."""
        return self.limiter.listing()

    def track(self, told: Track) -> Tracked:
        """Count memory that exists; raises as `TrackedAllocations.track`."""
        return self.tracking.track(told)

    def release_tracked(self, tracked_id: str) -> Released:
        """The memory was freed."""
        return self.tracking.release(tracked_id)

    def tracked(self) -> TrackedList:
        """What is tracked."""
        return self.tracking.listing()

    @contextmanager
    def _turn(self, still_asked: Callable[[], bool]) -> Generator[None]:
        """One action after the other; who gave up meanwhile has decided something else by now."""
        with self._serial:
            if not still_asked():
                raise NoLongerAsked("the asker went away before its turn came")
            yield

    def _former(self) -> Budgets | None:
        try:
            return read_kept(self._kept, Budgets)
        except KeptFileInvalid as error:
            log.warning("starting with built-in bounds: %s", error)
            return None
