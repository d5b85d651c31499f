"""The allocation limiter: leave for heavy work, asked for by id before the memory is allocated.

Covers: a ceiling over all grants, room in the ledger for each, grants whose owner forgot them. Does not cover memory
that exists already (`tracking`) nor caches, which admit their own bytes (`cache`), nor that the kernel gets back what
an operation freed (`soon_after`). Neighbour: `ledger`, whose lock guards this bookkeeping too.

A grant holds its bytes free as a reservation of its component until it is released. While its owner fills them they
are in the signal as well, so that much room counts twice: too little is given away meanwhile, never too much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from membudget_contract.control_api import (
    LISTED_AT_MOST,
    Allocation,
    AllocationRequest,
    Allocations,
    Granted,
    Released,
)
from membudget_runtime.errors import IdTaken, NoRoom, RuntimeMemoryError, TooManyHeld, ValueTooLarge
from membudget_runtime.ledger import Ledger

CEILING_BYTES: Final = 50 * 1024 * 1024
"""Over all grants (R-E09); room and the component's ceiling may allow less."""
STALE_SECONDS: Final = 600.0
"""A grant older than that has been forgotten."""
CLEANUP_SECONDS: Final = 300.0
"""Between two looks for forgotten grants, so that one may live for 15 minutes at most."""
HELD_AT_MOST: Final = 10_000
"""Grants at once: a megabyte of bookkeeping."""


@dataclass(frozen=True, slots=True)
class _Grant:
    component: str
    byte_count: int
    purpose: str
    granted_at: float

    def seconds_left(self, now: float) -> int:
        return max(0, round(self.granted_at + STALE_SECONDS - now))


class AllocationLimiter:
    """Grants in force. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], float],
        ceiling_bytes: int = CEILING_BYTES,
        on_released: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_released` is told after bytes were released, by their owner or as stale; with the ledger's lock held."""
        self.ceiling_bytes = ceiling_bytes
        self._on_released = on_released
        self.held_bytes = 0
        self._ledger = ledger
        self._clock = clock
        self._grants: dict[str, _Grant] = {}

    def request(self, asked: AllocationRequest) -> Granted:
        """Hold the bytes for this id; asking again for the same is answered with the grant there is.

        Raises:
            NoRoom: they do not fit now, under the base limit neither (OverBaseLimit); try again later.
            TooManyHeld: so many grants are in force; try again later.
            ValueTooLarge: they never fit under the ceiling of the limiter or of the component.
            IdTaken: the id holds other bytes or another component.
            UnknownComponent: neither a plan nor the service has such a component.
        """
        with self._ledger.lock:
            now = self._clock()
            grant = self._grants.get(asked.id)
            if grant is None:
                grant = self._grant(asked, now)
            elif (grant.component, grant.byte_count) != (asked.component, asked.request_bytes):
                raise IdTaken(f"{asked.id!r} holds {grant.byte_count} bytes of {grant.component}: release it first")
            return Granted(id=asked.id, granted_bytes=grant.byte_count, expires_in_seconds=grant.seconds_left(now))

    def release(self, grant_id: str) -> Released:
        """The operation ended; what is not held, or no more, is no error."""
        with self._ledger.lock:
            grant = self._grants.pop(grant_id, None)
            if grant is None:
                return Released(id=grant_id, released_bytes=0)
            self.held_bytes -= grant.byte_count
            self._ledger.return_reserved(grant.component, grant.byte_count)
            self._on_released()
            return Released(id=grant_id, released_bytes=grant.byte_count)

    def release_stale(self) -> int:
        """Take back grants that their owners forgot; returns the bytes. To be called every CLEANUP_SECONDS."""
        with self._ledger.lock:
            latest = self._clock() - STALE_SECONDS
            stale = [grant_id for grant_id, grant in self._grants.items() if grant.granted_at <= latest]
            return sum(self.release(grant_id).released_bytes for grant_id in stale)

    def listing(self) -> Allocations:
        """The newest grants."""
        with self._ledger.lock:
            now = self._clock()
            newest = islice(reversed(self._grants.items()), LISTED_AT_MOST)
            listed = tuple(
                Allocation(
                    id=grant_id,
                    component=grant.component,
                    granted_bytes=grant.byte_count,
                    purpose=grant.purpose,
                    expires_in_seconds=grant.seconds_left(now),
                )
                for grant_id, grant in newest
            )
            return Allocations(
                ceiling_bytes=self.ceiling_bytes,
                held_bytes=self.held_bytes,
                allocations=listed,
                omitted=len(self._grants) - len(listed),
            )

    def _grant(self, asked: AllocationRequest, now: float) -> _Grant:
        try:
            self._refuse_over_ceiling(asked)
        except RuntimeMemoryError:
            self._ledger.refused += 1
            raise
        self._ledger.set_aside(asked.component, asked.request_bytes)
        grant = _Grant(asked.component, asked.request_bytes, asked.purpose, now)
        self._grants[asked.id] = grant
        self.held_bytes += grant.byte_count
        return grant

    def _refuse_over_ceiling(self, asked: AllocationRequest) -> None:
        if asked.request_bytes > self.ceiling_bytes:
            raise ValueTooLarge(
                f"{asked.request_bytes} bytes never fit: the limiter grants {self.ceiling_bytes} at most"
            )
        if self.held_bytes + asked.request_bytes > self.ceiling_bytes:
            reason = f"{self.held_bytes} of {self.ceiling_bytes} bytes are granted to others"
            raise NoRoom(asked.component, asked.request_bytes, reason)
        if len(self._grants) >= HELD_AT_MOST:
            raise TooManyHeld(f"{HELD_AT_MOST} grants are in force; release some first")
