"""The runtime as one object: what a service creates at start and closes at its end.

Covers: putting ledger, caches, spill folder and control socket together, and the last budgets kept on disk. Does
not cover what the service itself holds: it registers components. Its bounds hold from the first moment, without
a sidecar: the kept budgets of its former life, else the built-in Production profile refined by `MEMBUDGET_*`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from membudget_contract.control_api import Accepted, Budgets, Freed, FreeRequest, Report, Room
from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept
from membudget_runtime.bounds import bounds_of, start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.control_server import ControlServer
from membudget_runtime.errors import NoLongerAsked
from membudget_runtime.ledger import Ledger
from membudget_runtime.own_memory import Allocator, OwnMemory
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.report import report
from membudget_runtime.spill import SpillStore

Key = TypeVar("Key", bound=Hashable)

KEPT_BUDGETS: Final = "budgets.kept"

log = logging.getLogger(__name__)


class MemoryRuntime:
    """Holds bytes inside bounds, and answers the sidecar.

    `state_folder` keeps the last budgets and spilled values; `environment` refines the start-up bounds.
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
        self._reclaimer = Reclaimer(self.ledger, start)
        budgets = self._former() or start
        self._configured = budgets if budgets.live else start
        """The newest budgets that may configure a component."""
        self._reclaimer.apply(budgets)
        self.spill = SpillStore(state_folder / "spill", start.spill_max_bytes)

    def cache(
        self,
        name: str,
        *,
        ttl_seconds: float,
        extra_entry_bytes: int = 0,
        on_removed: Callable[[str, Key], None] = lambda _collection, _key: None,
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
        )
        cache.apply(self._configured)
        return cache

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
        self._memory.close()

    def report(self) -> Report:
        """All figures at this moment."""
        return report(self.ledger)

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
