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
from contextlib import AbstractContextManager, contextmanager
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
from membudget_contract.policy import Priority, Signal
from membudget_runtime.adopted import Adopted, Ask
from membudget_runtime.bounds import bounds_of, start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.component import Clearable, Component
from membudget_runtime.control_server import ControlServer
from membudget_runtime.errors import NoLongerAsked, UnknownComponent
from membudget_runtime.interpreter.gc_tuner import GcTuner, mode_asked
from membudget_runtime.interpreter.leak_detector import LeakDetector
from membudget_runtime.ledger import Ledger
from membudget_runtime.limiter import CLEANUP_SECONDS, AllocationLimiter
from membudget_runtime.overview import Breakdown, Limits, Snapshot, Status, breakdown, limits, status
from membudget_runtime.own_memory import Allocator, OwnMemory
from membudget_runtime.periodic import Periodic
from membudget_runtime.persistence import Persistence, Persistent
from membudget_runtime.process_guards import ProcessGuards
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.reloads import Observer, Reloads
from membudget_runtime.replacement import AdaptiveFifo, Replacement
from membudget_runtime.report import report
from membudget_runtime.request_times import RequestTimes
from membudget_runtime.soon_after import SoonAfter
from membudget_runtime.spill import SpillStore
from membudget_runtime.spilled_values import SpilledValues
from membudget_runtime.tracking import TrackedAllocations

Key = TypeVar("Key", bound=Hashable)

KEPT_BUDGETS: Final = "budgets.kept"
TRIM_AFTER_SECONDS: Final = 2.0
"""From the release of a grant to the return of the heap's free pages: within twice that, 5 s are promised (R-E09)."""

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
        self._gc_mode = mode_asked(environment)
        self._guards = ProcessGuards(environment)
        self._memory, allocator = OwnMemory(), Allocator()
        allocator.use_one_arena()
        self.ledger = Ledger(bounds_of(start, start), memory=self._memory, allocator=allocator, clock=clock)
        self._trim_after_release = SoonAfter("trim-after-release", TRIM_AFTER_SECONDS, self.ledger.trim)
        self.limiter = AllocationLimiter(self.ledger, clock, on_released=self._trim_after_release.ask)
        self.tracking = TrackedAllocations(self.ledger)
        self.gc = GcTuner(clock)
        self.leaks = LeakDetector(
            read_bytes=lambda: self._memory.signal_bytes(Signal.UNRECLAIMABLE),
            trim=self.ledger.trim,
            uninterrupted=self.gc.uninterrupted,
            clock=clock,
        )
        self._reclaimer = Reclaimer(self.ledger, start)
        self._reloads = Reloads()
        self._requests = RequestTimes(clock)
        self._persistence = Persistence(state_folder / "persisted", time.time)
        self._budgets = budgets = self._former() or start
        self._configured = budgets if budgets.live else start
        """The newest budgets that may configure a component."""
        self._hold(budgets)
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

    def clear(self, name: str) -> int:
        """Drop every entry of the cache that is the component `name`; returns how many.

        What is persisted under the same name goes too.

        Raises:
            UnknownComponent: there is no cache of that name.
        """
        caches = {part.name: part for part in self.ledger.components if isinstance(part, Clearable)}
        if name not in caches:
            raise UnknownComponent(f"no cache {name!r}; there are {', '.join(sorted(caches)) or 'none'}")
        before = caches[name].owned_bytes()
        dropped = caches[name].clear()
        self._reclaimer.hand_back(before - caches[name].owned_bytes())
        self._persistence.forget(name)
        return dropped

    def register(self, component: Component) -> str | None:
        """Take in a component of the service's own, and tell it what holds; why it cannot take it over, else None."""
        self.ledger.register(component)
        return component.apply(self._configured)

    def adopt(
        self,
        name: str,
        owned_bytes: Callable[[], int],
        *,
        collection: str | None = None,
        cleanup: Callable[[], object] | None = None,
        spill: Ask | None = None,
        evict: Ask | None = None,
        limit: Ask | None = None,
    ) -> str | None:
        """Manage what the service holds in dicts of its own, as the component `name`.

        `owned_bytes` tells how much that is now; it is asked often and under the ledger's lock, so it must not wait.
        The others are asked from outside any put, without a lock: `cleanup` to drop what costs nobody anything, `spill`
        and `evict` to give back about so many bytes, `limit` to hold no more than so many from now on. What they return
        is ignored, what they freed is asked of `owned_bytes`. By `collection` it has a class, by its own name else.
        Returns why it did not take over the limit there is, else None.
        """
        asked = {"cleanup": cleanup, "spill": spill, "evict": evict, "limit": limit}
        given: dict[str, Any] = {means: function for means, function in asked.items() if function is not None}
        return self.register(Adopted(name, owned_bytes, collection=collection, **given))

    def spilled_values(self) -> SpilledValues[Any]:
        """Values by key that the service itself moves to this runtime's spill folder and loads back."""
        return SpilledValues(self.spill)

    def reserve(
        self, component: str, byte_count: int, priority: Priority = Priority.MEDIUM
    ) -> AbstractContextManager[None]:
        """Room for bytes about to be allocated, until the block ends; raises as `Ledger.reserve`."""
        return self.ledger.reserve(component, byte_count, priority)

    def on_reload(self, name: str, observer: Observer) -> None:
        """Tell this observer of every reload; one that raises keeps what it has, and the others are told as well."""
        self._reloads.observe(name, observer)

    def on_persist(self, name: str, persistent: Persistent) -> int:
        """Persist these entries when asked to; how many of a former life were taken back just now."""
        return self._persistence.register(name, persistent)

    def observe_request(self, seconds: float) -> None:
        """A request of the service took so long. Costs about a microsecond; from any thread."""
        self._requests.observe(seconds)
        self.gc.note_activity()

    def serve(self, socket_path: Path) -> None:
        """Open the control socket.

        Raises:
            AlreadyServed: another live process holds it.
            OSError: its folder is missing or not writable.
        """
        self._server = ControlServer(socket_path, self)

    def started(self) -> None:
        """The service has built what stays: from now on collect garbage as MEMBUDGET_GC_MODE asks, or for Latency."""
        self.gc.use(self._gc_mode)

    def close(self) -> None:
        """Close the control socket and the kernel's files: from here on the ceilings hold, the room is unknown."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cleanup.close()
        self._trim_after_release.close()
        self.leaks.stop()
        self.gc.restore()
        self._memory.close()
        self._guards.restore()

    def report(self) -> Report:
        """All figures at this moment."""
        return report(
            self.ledger,
            self.gc.report(),
            allocations_bytes=self.limiter.held_bytes,
            requests=self._requests.report(),
            restored=self._persistence.restored,
            set_aside=self._persistence.set_aside,
        )

    def snapshot(self) -> Snapshot:
        """Status, breakdown and limits of one moment. Costs a reading of the kernel, and a walk over the components."""
        with self.ledger.lock:
            signal_bytes, told = self._memory.signal_bytes(self.ledger.bounds.signal), self.report()
            return Snapshot(
                unix_seconds=time.time(),
                pid=told.pid,
                status=status(self.ledger, self._budgets, signal_bytes),
                breakdown=breakdown(told, signal_bytes),
                limits=limits(self.ledger, self._budgets),
                report=told,
            )

    def status(self) -> Status:
        """How full the budget is."""
        return self.snapshot().status

    def breakdown(self) -> Breakdown:
        """Whose the bytes are."""
        return self.snapshot().breakdown

    def limits(self) -> Limits:
        """What holds."""
        return self.snapshot().limits

    def enforce(self) -> Freed:
        """Come down to the bounds that hold, where memory that nobody manages grew or a holder went over its ceiling.

        Admission keeps the bounds by itself; this is for the rest, where no sidecar looks after it. Nothing is done in
        Observe mode.
        """
        with self._serial:
            return self._reclaimer.enforce()

    def apply(self, budgets: Budgets, still_asked: Callable[[], bool] = lambda: True) -> Freed:
        """Hold new budgets, come down to them, and keep them for the next life.

        Raises:
            NoLongerAsked: `still_asked` said so when the turn came.
        """
        with self._turn(still_asked):
            self._budgets = budgets
            if budgets.live:
                self._configured = budgets
            freed = self._hold(budgets)
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

    def _hold(self, budgets: Budgets) -> Freed:
        if budgets.live:
            self.gc.plan(budgets.gc_thresholds)
        return self._reclaimer.apply(budgets)

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
