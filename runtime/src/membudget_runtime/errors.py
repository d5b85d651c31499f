"""Errors of the runtime.

RuntimeMemoryError
+-- NoRoom          the bytes do not fit now; retriable
|   +-- OverBaseLimit  the process without its index and caches is at its limit; retriable
+-- ValueTooLarge   the value can never fit under the component's ceiling
+-- TooManyHeld     so many ids are held at once; retriable
+-- IdTaken         the id holds something else
+-- DetectorOff     the leak detector was asked for a snapshot and is off
+-- UnknownComponent  neither a plan nor the service has such a component
+-- SpillFailed     the spill folder did not take the bytes; they stay in memory
+-- SpillDamaged    spilled bytes did not come back as they were written
+-- SpillUnread     spilled bytes cannot be read just now; they are still there
+-- EntriesDamaged  a file of persisted entries is torn, changed or foreign
+-- PersistIncomplete  a process that ends has not persisted everything
+-- GuardRefused    a limit of the process that was asked for cannot be set
+-- ReloadInside    an observer of a reload asked for one
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


class OverBaseLimit(NoRoom):
    """The process without its index and caches is at its limit; caches do not help. Try again when others are done."""

    def __init__(self, component: str, asked_bytes: int, limit_bytes: int) -> None:
        reason = f"without index and caches the process would pass its base limit of {limit_bytes} bytes"
        super().__init__(component, asked_bytes, reason)
        self.limit_bytes = limit_bytes


class ValueTooLarge(RuntimeMemoryError):
    """The value is larger than its component's whole ceiling; it is refused, nothing is evicted for it."""


class TooManyHeld(RuntimeMemoryError):
    """As many grants or tracked allocations as there may be at once; try again when some were released."""


class IdTaken(RuntimeMemoryError):
    """The id holds other bytes or another component: release it first, or take another id."""


class DetectorOff(RuntimeMemoryError):
    """The leak detector is off: switch it on first."""


class UnknownComponent(RuntimeMemoryError):
    """No component of that name in the plan or in the service: a misspelt one would be bounded by nothing."""


class SpillFailed(RuntimeMemoryError):
    """The folder is full, read-only or gone; what was to be spilled stays in memory."""


class SpillDamaged(RuntimeMemoryError):
    """A spilled record cannot be read back or fails its checksum; it counts as a miss, never as data."""


class SpillUnread(RuntimeMemoryError):
    """This process is out of file descriptors or the kernel out of memory: a miss for now, nothing is dropped."""


class EntriesDamaged(RuntimeMemoryError):
    """A file of persisted entries is torn, changed or foreign; nothing of it is used."""


class PersistIncomplete(RuntimeMemoryError):
    """Not everything was persisted: a full disk, or the time ran out. What is on disk is good."""


class GuardRefused(RuntimeMemoryError):
    """The kernel's limit for this process cannot be set: it is over the hard one, or the process is larger already."""


class ReloadInside(RuntimeMemoryError):
    """An observer of a reload asked for a reload: it would wait for itself."""


class AlreadyServed(RuntimeMemoryError):
    """Another live process serves this control socket; one process per socket."""


class NoLongerAsked(RuntimeMemoryError):
    """Who asked went away before the turn came; nothing was done, and there is no one to answer."""
