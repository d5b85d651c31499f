"""How often this controller may write to the API server: at most 20 times in any second, whatever happens.

Covers: the count, for statuses, events and published keys together. Does not write (`status_writer`,
`key_publication`). Thread-safe. The Secret is not counted: it is written at starts and rotations; nor are resizes,
which are 20 a look at most.

A write counts from when it begins until a second after its end, so that no second holds more as the API server counts
them, however late one arrives there. Keys go before statuses: without its key a pod believes no order.

500 policies whose pods all come back at once would else be thousands of writes as fast as the API server answers, at
the very moment at which it has most to do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

MOST_PER_SECOND: Final = 20


class BudgetSpent(Exception):
    """No write just now; `WriteBudget.next_at` says when to ask again."""


class WriteBudget:
    """Remembers the writes of the last second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ended_at: deque[float] = deque()
        self._under_way = 0
        self._reserved = 0

    @contextmanager
    def one(self, *, reserved: bool = False) -> Generator[None]:
        """One write, which begins and ends with the block; `reserved` takes one that others leave.

        Raises:
            BudgetSpent: before the block.
        """
        self._begin(0 if reserved else self._reserved)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                self._ended_at.append(self._clock())

    def reserve(self, count: int) -> None:
        """Leave so many to who asks for reserved ones, from now on."""
        self._reserved = min(count, MOST_PER_SECOND)

    @property
    def next_at(self) -> float:
        """When there may be one again, by the clock; a second from now where that hangs on others."""
        with self._lock:
            now = self._clock()
            if len(self._ended_at) + self._under_way + self._reserved < MOST_PER_SECOND:
                return now
            return self._ended_at[0] + 1 if self._ended_at else now + 1

    def _begin(self, left_to_others: int) -> None:
        with self._lock:
            now = self._clock()
            while self._ended_at and self._ended_at[0] + 1 <= now:  # as `next_at` adds it up, to the last bit
                self._ended_at.popleft()
            if len(self._ended_at) + self._under_way + left_to_others >= MOST_PER_SECOND:
                raise BudgetSpent
            self._under_way += 1
