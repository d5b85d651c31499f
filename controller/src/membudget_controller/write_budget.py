"""How often this controller may write to the API server: at most 20 times in any second, whatever happens.

Covers: the count, for statuses, events and published keys together. Does not write (`status_writer`,
`key_publication`). One thread. The Secret is not counted: it is written at starts and rotations.

500 policies whose pods all come back at once would else be thousands of writes as fast as the API server answers, at
the very moment at which it has most to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

MOST_PER_SECOND: Final = 20


class WriteBudget:
    """Remembers the writes of the last second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._written_at: deque[float] = deque()

    def spend(self) -> bool:
        """Take one write, if there is one."""
        now = self._clock()
        while self._written_at and self._written_at[0] + 1 <= now:  # as `next_at` adds it up, to the last bit
            self._written_at.popleft()
        if len(self._written_at) >= MOST_PER_SECOND:
            return False
        self._written_at.append(now)
        return True

    @property
    def next_at(self) -> float:
        """When there is one again, by the clock."""
        full = len(self._written_at) >= MOST_PER_SECOND
        return self._written_at[0] + 1 if full else self._clock()
