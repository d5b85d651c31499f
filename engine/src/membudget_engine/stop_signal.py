"""SIGTERM and SIGINT, from the first moment of a process to its last.

Covers: no signal lost between start-up and serving, none that interrupts closing. Does not cover what stopping
means (`lifecycle`). Imports nothing heavy: it is in place before FAISS is loaded, because process 1 of a container
has no default action for a signal and would ignore it.
"""

from __future__ import annotations

import signal
import time
from types import FrameType


class StopAsked(BaseException):
    """Raised in the main thread when a signal comes before anything is served."""


class StopSignal:
    """Takes both signals over from its construction on."""

    def __init__(self) -> None:
        self.asked = False
        self.asked_at = 0.0
        """When the first one came, by the monotonic clock."""
        self._starting = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def wait_for_server(self) -> None:
        """Start-up is over: from now on a signal is only noted in `asked`, for the server to look at."""
        self._starting = False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self.asked_at = True, time.monotonic()
        if self._starting:
            # Once: a second signal must not interrupt the closing of what start-up has opened.
            self._starting = False
            raise StopAsked


def ignore_signals() -> None:
    """Everything is done: while the interpreter ends, a signal must not become the exit code any more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
