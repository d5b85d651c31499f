"""The pause between two looks, and what ends it early: a call from another thread, or tasks that stall for memory.

Covers: waiting, waking, the kernel's pressure trigger. Does not cover what is looked at (`loop`) nor how long a pause
is (`pace`). The trigger says nothing of the budget; it only brings the next look forward.

Pressure (PSI): the cgroup's own `memory.pressure` where this process may write it, else `/proc/pressure/memory` of the
whole host, as a hint. Without privileges the window must be a multiple of 2 s (Documentation/accounting/psi.rst); v1
has no pressure of a single cgroup.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import weakref
from collections.abc import Iterable
from typing import Final

STALL_WINDOW_SECONDS: Final = 2.0
_TRIGGER: Final = b"some 100000 2000000\0"
"""Some task waited for memory for 100 ms within 2 s; the kernel tells it once per window."""
_GONE: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL

log = logging.getLogger(__name__)


class Waking:
    """One thread waits; any thread, and a signal handler, may wake it."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._event)  # not at the end of waiting: others may still wake
        self._trigger: int | None = None
        self._poll = select.poll()
        self._poll.register(self._event, select.POLLIN)

    def wake(self) -> None:
        """End the pause now, or the next one before it begins."""
        os.eventfd_write(self._event, 1)

    def wait(self, seconds: float) -> bool:
        """Pause; True when tasks stalled for memory."""
        stalled = False
        for descriptor, events in self._poll.poll(1000 * seconds):
            if descriptor == self._event:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._event)
            elif events & _GONE:  # its cgroup was removed
                self._close_trigger()
            else:
                stalled = True
        return stalled

    def heed_pressure(self, files: Iterable[str]) -> str | None:
        """Be woken by the first of these pressure files that may be used; which one, None where none may."""
        self._close_trigger()
        for path in files:
            try:
                self._trigger = _open_trigger(path)
            except OSError as error:
                log.debug("no wake-up by %s: %s", path, error.strerror)
                continue
            self._poll.register(self._trigger, select.POLLPRI)
            return path
        return None

    def _close_trigger(self) -> None:
        if self._trigger is not None:
            self._poll.unregister(self._trigger)
            os.close(self._trigger)
            self._trigger = None


def _open_trigger(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, _TRIGGER)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
