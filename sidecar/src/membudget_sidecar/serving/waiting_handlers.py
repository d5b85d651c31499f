"""Handlers that may wait, as for the disk: in one thread beside the serving one.

Covers: taking a few, refusing more, ending. Does not cover what is done with their answers (`http_server`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from membudget_sidecar.serving.answers import Answer
from membudget_sidecar.serving.http_exchange import Asked
from membudget_sidecar.serving.routing import answer

MAX_WAITING: Final = 8
"""Beside the one in work; more are told to come again."""
_JOIN_SECONDS: Final = 0.2


class WaitingHandlers:
    """One thread for handlers that may wait, begun with the first of them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Asked, Callable[[Answer], None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, asked: Asked, answered: Callable[[Answer], None]) -> bool:
        """Have it answered, in that thread; False when too many wait."""
        if self._queue.qsize() >= MAX_WAITING:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="waiting", daemon=True)
            self._thread.start()
        self._queue.put((asked, answered))
        return True

    def stop(self) -> bool:
        """End it; False when a handler still waits, which does not hold the process."""
        if self._thread is None:
            return True
        self._queue.put(None)
        self._thread.join(_JOIN_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None:
            asked, answered = taken
            answered(answer(*asked))
