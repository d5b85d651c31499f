"""Errors of the runtime.

RuntimeMemoryError
+-- NoRoom          the bytes do not fit now; retriable
+-- ValueTooLarge   the value can never fit under the component's ceiling
+-- SpillFailed     the spill folder did not take the bytes; they stay in memory
+-- SpillDamaged    spilled bytes did not come back as they were written
+-- AlreadyServed   another process serves the control socket
+-- NoLongerAsked   who asked for an action has gone; nothing was done
"""

from __future__ import annotations


class RuntimeMemoryError(Exception):
    """Base of all errors of the runtime."""


class NoRoom(RuntimeMemoryError):
    """The bytes do not fit now: nothing of a class low enough is left to evict. Try again later."""

    def __init__(self, component: str, asked_bytes: int, reason: str) -> None:
        super().__init__(f"{component}: {asked_bytes} bytes do not fit: {reason}")
        self.component = component
        self.asked_bytes = asked_bytes
        self.reason = reason


class ValueTooLarge(RuntimeMemoryError):
    """The value is larger than its component's whole ceiling; it is refused, nothing is evicted for it."""


class SpillFailed(RuntimeMemoryError):
    """The folder is full, read-only or gone; what was to be spilled stays in memory."""


class SpillDamaged(RuntimeMemoryError):
    """A spilled record cannot be read back or fails its checksum; it counts as a miss, never as data."""


class AlreadyServed(RuntimeMemoryError):
    """Another live process serves this control socket; one process per socket."""


class NoLongerAsked(RuntimeMemoryError):
    """Who asked went away before the turn came; nothing was done, and there is no one to answer."""
