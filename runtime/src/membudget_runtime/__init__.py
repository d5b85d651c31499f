"""What a Python service embeds to have its memory managed.

Covers: a ledger of every byte that is held on purpose, byte-bounded caches that evict and spill by priority,
and the control socket over which a sidecar moves budgets. Its bounds hold with no sidecar at all. Knows nothing
of vectors and brings no framework and no numpy along. Does not decide when to act: that is the sidecar's ladder.

The names below are what a service uses; docs/runtime.md shows how. Modules hold more, for the engine and for tests.
"""

from membudget_contract.control_api import AllocationRequest, Freed, FreeRequest, Granted, Means, Track
from membudget_contract.policy import Priority, Signal
from membudget_runtime.cache import BoundedCache
from membudget_runtime.cache_counters import CacheCounters
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.errors import (
    AlreadyServed,
    IdTaken,
    NoRoom,
    ReloadInside,
    RuntimeMemoryError,
    SpillDamaged,
    SpillFailed,
    SpillUnread,
    TooManyHeld,
    UnknownComponent,
    ValueTooLarge,
)
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.overview import Breakdown, Limits, Snapshot, Status
from membudget_runtime.persistence import Persistent
from membudget_runtime.reloads import Observer, Reloading
from membudget_runtime.replacement import AdaptiveFifo, LeastFrequentlyUsed, LeastRecentlyUsed
from membudget_runtime.spilled_values import SpilledValues

__all__ = [
    "AdaptiveFifo",
    "AllocationRequest",
    "AlreadyServed",
    "BoundedCache",
    "Breakdown",
    "CacheCounters",
    "CollectionUse",
    "Component",
    "FreeRequest",
    "Freed",
    "Granted",
    "IdTaken",
    "KeptEntry",
    "LeastFrequentlyUsed",
    "LeastRecentlyUsed",
    "Limits",
    "Means",
    "MemoryRuntime",
    "NoRoom",
    "Observer",
    "Persistent",
    "Priority",
    "Ranking",
    "ReloadInside",
    "Reloading",
    "Removed",
    "RuntimeMemoryError",
    "Signal",
    "Snapshot",
    "SpillDamaged",
    "SpillFailed",
    "SpillUnread",
    "SpilledValues",
    "Status",
    "TooManyHeld",
    "Track",
    "UnknownComponent",
    "ValueTooLarge",
]
