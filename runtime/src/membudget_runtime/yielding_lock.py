"""The ledger's lock: re-entrant, and free of convoys.

Covers: mutual exclusion that stays cheap when a thread gives up the interpreter while it holds the lock, as every
reading of `/proc` does. A plain lock then goes to sleeping waiters one by one, each with a change of threads:
8 threads offered 0.7 GiB/s to a full cache that way, and 1.7 GiB/s with waiters that yield and try again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

TRIES: Final = 100
"""Then the holder is at something long, and sleeping is right."""


class YieldingLock:
    """Held by a context, or for each step of an iterator."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(False):  # noqa: FBT003  a keyword costs a tenth of an uncontended lock
            self._wait()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

    def each(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, each of them taken with the lock held, which is free in between."""
        while True:
            with self:
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _wait(self) -> None:
        for _ in range(TRIES):
            os.sched_yield()
            if self._lock.acquire(blocking=False):
                return
        self._lock.acquire()
