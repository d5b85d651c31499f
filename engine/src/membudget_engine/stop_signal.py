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
        self._interrupts = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def interrupt_start_up(self) -> None:
        """Everything is imported: a signal ends start-up where it stands from now on.

        Not before: an exception in the midst of an import may be lost in one of its callbacks, or leave a library in C
        half set up, which is a crash at the interpreter's end.

        Raises:
            StopAsked: one came before.
        """
        self._interrupts = True
        if self.asked:
            self._interrupt()

    def wait_for_server(self) -> None:
        """Start-up is over: from now on a signal is only noted in `asked`, for the server to look at."""
        self._interrupts = False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self.asked_at = True, time.monotonic()
        if self._interrupts:
            self._interrupt()

    def _interrupt(self) -> None:
        # Once: a second signal must not interrupt the closing of what start-up has opened.
        self._interrupts = False
        raise StopAsked


def ignore_signals() -> None:
    """Everything is done: while the interpreter ends, a signal must not become the exit code any more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
