"""The orders of eviction of one cache, one for each class.

Covers: which order an entry of a collection stands in, and a new ranking of collections. Does not cover the order
inside a class (`replacement`) nor between components (`ledger`). Not thread-safe: the ledger's lock guards it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from membudget_contract.policy import Priority
from membudget_runtime.component import Ranking
from membudget_runtime.entry import Entry, steps_through
from membudget_runtime.replacement import Replacement
from membudget_runtime.table import Table

Key = TypeVar("Key", bound=Hashable)


class ClassOrders(Generic[Key]):
    """An order for each class that has entries, and one for what may not be evicted."""

    def __init__(self, policy: type[Replacement[Key]], ranking: Ranking) -> None:
        self._policy = policy
        self._ranking = ranking
        self._orders: dict[Priority | None, Replacement[Key]] = {}

    def evictable(self, priority: Priority) -> Replacement[Key] | None:
        """What of this class may go; None when there is nothing."""
        return self._orders.get(priority)

    def steps(self) -> Iterator[list[Entry[Key]]]:
        """All entries, in no order that counts: as `steps_through` says."""
        yield from steps_through([entries for order in self._orders.values() for entries in order.lists()])

    def steps_of_class(self, priority: Priority) -> Iterator[list[Entry[Key]]]:
        """All of this class in steps, what may not go last; inside both what goes first comes first."""
        for evictable in (priority, None):
            order = self._orders.get(evictable)
            for step in () if order is None else order.steps():
                yield [entry for entry in step if self._ranking.priority(entry.collection) is priority]

    def of(self, collection: str) -> Replacement[Key]:
        """The order of the collection's class."""
        priority = self._ranking.priority(collection)
        evictable = priority if self._ranking.may_evict(collection, priority) else None
        order = self._orders.get(evictable)
        if order is None:
            order = self._orders[evictable] = self._policy()
        return order

    def rank_as(self, ranking: Ranking, tables: Mapping[str, Table[Key]]) -> bool:
        """Let each entry stand in its class's order; whether the ranking is another one than before.

        Takes as long as there are entries in the classes, where one changed: a new plan seldom does that.
        """
        if ranking is self._ranking:
            return False
        changed, self._ranking = ranking != self._ranking, ranking
        for order in list(self._orders.values()) if changed else ():
            moving = [entry for entry in order if self.of(entry.collection) is not order]
            for entry in moving:
                order.remove(entry)
                target = tables[entry.collection].order = self.of(entry.collection)
                target.add(entry)
        return changed

    def extra_bytes(self) -> int:
        """What the orders cost beside the entries."""
        return sum(order.extra_bytes() for order in self._orders.values())

    def clear(self) -> None:
        """There is no entry any more."""
        self._orders.clear()
