"""What the ledger asks of everything that holds bytes.

Covers: the interface, and the scope of an eviction. Implementations: `cache.BoundedCache` here, the mapped index
in the engine. All methods are called with the ledger's lock held unless they say otherwise.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from membudget_contract.control_api import Budgets
from membudget_contract.policy import EVICTABLE, Priority

DEFAULT_PRIORITY: Final = Priority.MEDIUM


@dataclass(frozen=True, slots=True)
class Ranking:
    """Which class each collection belongs to, and which collections eviction leaves alone."""

    priorities: Mapping[str, Priority] = field(default_factory=dict[str, Priority])
    excluded: frozenset[str] = frozenset()

    def priority(self, collection: str) -> Priority:
        """The class of a collection; what no policy names is Medium."""
        return self.priorities.get(collection, DEFAULT_PRIORITY)

    def may_evict(self, collection: str, priority: Priority) -> bool:
        """True when the collection is of exactly this class, and the class and the name may be evicted."""
        return priority in EVICTABLE and collection not in self.excluded and self.priority(collection) is priority


@dataclass(slots=True)
class Removed:
    """What an eviction, a spill or an expiry took out of memory."""

    entries: int = 0
    collections: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes by collection."""
    freed_bytes: int = 0
    """By how much the component holds less: more than the entries where pages came free, less where they did not."""
    problem: str | None = None

    def progressed(self) -> bool:
        """Whether another step may free more: moving values together frees bytes and drops no entry."""
        return self.entries > 0 or self.freed_bytes > 0

    def add(self, other: Removed) -> None:
        """Count the other's too."""
        self.entries += other.entries
        self.freed_bytes += other.freed_bytes
        for collection, count in other.collections.items():
            self.collections[collection] = self.collections.get(collection, 0) + count
        self.problem = self.problem or other.problem

    def count(self, collection: str, byte_count: int) -> None:
        """One more entry."""
        self.entries += 1
        self.collections[collection] = self.collections.get(collection, 0) + byte_count


@dataclass(frozen=True, slots=True)
class CollectionUse:
    """One collection's share of a component."""

    name: str
    entries: int
    owned_bytes: int


class Component(abc.ABC):
    """A named holder of bytes. The defaults suit a component that gives nothing back."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abc.abstractmethod
    def owned_bytes(self) -> int:
        """Anonymous memory held, as the kernel charges it."""

    def used_bytes(self) -> int:
        """The part of `owned_bytes` that holds something: what is spare is used up before more is mapped."""
        return self.owned_bytes()

    def give_back_spare(self) -> None:
        """Give what is spare back to the kernel."""
        return

    def mapped_bytes(self) -> int | None:
        """Resident pages of mapped files; None when the kernel did not say. May be up to a second old."""
        return 0

    def spilled_bytes(self) -> int:
        """Bytes on disk."""
        return 0

    def evictions(self) -> int:
        """Entries evicted since start."""
        return 0

    def collections(self) -> list[CollectionUse]:
        """The shares of the collections, for reports."""
        return []

    def apply(self, budgets: Budgets) -> str | None:
        """Take over what a new plan says beside ceilings. Never called in Observe mode, nor with the lock held.

        Returns why something was not taken over, None when all was.
        """
        del budgets
        return None

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Drop entries of exactly this class, least valuable first, until at least `target_bytes` are freed."""
        del target_bytes, priority, ranking
        return Removed()

    def gives(self, priority: Priority) -> bool:
        """Whether an eviction of this class may free anything here."""
        del priority
        return type(self).evict is not Component.evict

    def give_up(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Drop what only its owner can drop, as `evict` does. Called without the lock: it is somebody else's code."""
        del target_bytes, priority, ranking
        return Removed()

    def spill(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Move entries of this class to disk until `target_bytes` are freed. Called without the lock: it does I/O."""
        del target_bytes, priority, ranking
        return Removed()

    def expire(self) -> Removed:
        """Drop what is past its time to live. Called without the lock: it takes it in steps."""
        return Removed()

    def page_out(self, target_bytes: int) -> int:
        """Give back the coldest mapped pages; bytes that left residency. Called without the lock."""
        del target_bytes
        return 0


class Account(Component):
    """Holds nothing of its own: a name under which bytes are granted or tracked."""

    def owned_bytes(self) -> int:
        """None but what is tracked, which the ledger counts."""
        return 0


@runtime_checkable
class Clearable(Protocol):
    """A component that can drop everything at once. Takes the ledger's lock by itself."""

    name: str

    def clear(self) -> int:
        """Drop every entry; returns how many."""
        ...

    def owned_bytes(self) -> int:
        """Anonymous and shared memory it holds."""
        ...
