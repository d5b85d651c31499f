"""A thread that does one small thing every so many seconds.

Covers: starting, stopping at once, going on after a failure. Does not cover what is done (`limiter.release_stale`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Periodic:
    """Runs from construction to `close`; the first time after one period."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._seconds = seconds
        self._work = work
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; work under way is finished first."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._work()
            except Exception:
                log.exception("%s failed; next try in %s s", self._thread.name, self._seconds)
