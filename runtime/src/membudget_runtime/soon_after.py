"""A thread that does one thing some seconds after it was asked, once for all who asked meanwhile.

Covers: each asking is followed by the work between one and two periods later, also while others keep asking. Does not
cover what is done: giving the heap's free pages back after a grant was released, where the wait lets the owner free
what he held under it. Neighbour: `periodic`, for work nobody asks for. The thread starts at the first asking.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class SoonAfter:
    """From construction to `close`. Thread-safe."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._work = work
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.RLock()  # a finalizer may ask while it is held
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Have it done; returns at once."""
        self._asked.set()
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End at once; what was asked for and not begun is not done."""
        with self._lock:
            self._ended.set()
            thread = self._thread
        self._asked.set()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while self._asked.wait():
            self._asked.clear()
            if self._ended.wait(self._seconds):
                return
            try:
                self._work()
            except Exception:
                log.exception("%s failed", self._name)
