"""Memory that somebody allocated and wants counted: tracked by id, component, size and type.

Covers: bookkeeping by id, counted in its component from then on. Does not cover leave to allocate (`limiter`): what
is tracked exists already, so room is no question; it leaves less for the others of its component. Only the base limit
refuses it: then the bytes are in the process all the same, and whoever told of them is asked to free them.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from membudget_contract.control_api import LISTED_AT_MOST, Released, Track, Tracked, TrackedList
from membudget_runtime.errors import TooManyHeld
from membudget_runtime.ledger import Ledger

TRACKED_AT_MOST: Final = 10_000
"""Ids at once: two megabytes of bookkeeping."""


class TrackedAllocations:
    """What is tracked. Thread-safe: the ledger's lock guards it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tracked: dict[str, Tracked] = {}

    def track(self, told: Track) -> Tracked:
        """Count the bytes; what was told of this id before no longer holds.

        Raises:
            TooManyHeld: so many ids are tracked.
            OverBaseLimit: they came on top, and the process without its index and caches is over its limit.
            UnknownComponent: neither a plan nor the service has such a component.
        """
        tracked = Tracked(id=told.id, component=told.component, tracked_bytes=told.tracked_bytes, type=told.type)
        with self._ledger.lock:
            if told.id not in self._tracked and len(self._tracked) >= TRACKED_AT_MOST:
                raise TooManyHeld(f"{TRACKED_AT_MOST} allocations are tracked; release some first")
            former = self._tracked.get(told.id)
            if former is None or told.tracked_bytes > former.tracked_bytes:
                self._ledger.check_base(told.component, 0)
            self._ledger.count_tracked(told.component, told.tracked_bytes)
            self.release(told.id)
            self._tracked[told.id] = tracked
        return tracked

    def release(self, tracked_id: str) -> Released:
        """The memory was freed; what is not tracked is no error."""
        with self._ledger.lock:
            tracked = self._tracked.pop(tracked_id, None)
            if tracked is None:
                return Released(id=tracked_id, released_bytes=0)
            self._ledger.count_tracked(tracked.component, -tracked.tracked_bytes)
            return Released(id=tracked_id, released_bytes=tracked.tracked_bytes)

    def listing(self) -> TrackedList:
        """The newest ones."""
        with self._ledger.lock:
            listed = tuple(islice(reversed(self._tracked.values()), LISTED_AT_MOST))
            return TrackedList(
                tracked_bytes=self._ledger.tracked_bytes(), tracked=listed, omitted=len(self._tracked) - len(listed)
            )
