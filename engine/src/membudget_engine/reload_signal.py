"""SIGHUP asks for a reload, from the first moment of a process on.

Covers: turning any number of signals into as few reloads as will do. Does not cover what a reload is
(`membudget_runtime.reloads`).

The handler only adds one to an eventfd: a signal may come while the handler of another one runs, where any lock of
Python's could be met half-way. Reading the eventfd takes all signals at once.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)


class ReloadSignal:
    """Takes the signal over from its construction on; what comes before `follow` is acted on then."""

    def __init__(self) -> None:
        self._asked = os.eventfd(0, os.EFD_CLOEXEC)
        self._ended = False
        self._thread: threading.Thread | None = None
        signal.signal(signal.SIGHUP, self._on_signal)

    def follow(self, reload: Callable[[], object]) -> None:
        """Call `reload` in a thread of its own whenever signals came."""
        self._thread = threading.Thread(target=self._run, args=(reload,), name="reload-signal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; a reload under way is finished first, later signals do nothing."""
        self._ended = True
        os.eventfd_write(self._asked, 1)
        if self._thread is not None:
            self._thread.join()

    def _run(self, reload: Callable[[], object]) -> None:
        while True:
            count = os.eventfd_read(self._asked)
            if self._ended:
                return
            log.info("reload asked for by %d signals", count)
            try:
                reload()
            except Exception:
                log.exception("reload failed")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        os.eventfd_write(self._asked, 1)
