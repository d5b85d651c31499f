"""A holder of bytes that is not ours: a service's own dicts and lists, told about by functions.

Covers: what such a holder is asked for, and what came of it as it says itself. Does not cover caches that this library
bounds (`cache`) nor single allocations (`tracking`). Neighbour: `reclaim`, which asks.

Its functions are called from the thread that carries out an action, never with the ledger's lock held and never in the
middle of somebody's put: they may take locks of their own and call this library. `owned_bytes` alone is asked at any
time, with the lock held.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Final

from membudget_contract.control_api import Budgets
from membudget_contract.policy import Priority
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed

log = logging.getLogger(__name__)

Ask = Callable[[int], object]
"""Told a number of bytes; what it returns is ignored."""


def _nothing(_byte_count: int = 0) -> None:
    """What a holder that has no such function does."""


class Adopted(Component):
    """One holder. Its bytes are of one collection, by which it has a class: its own name where none is given.

    A function that raises gave nothing: the others are asked all the same, and the action's answer names it.
    """

    def __init__(
        self,
        name: str,
        owned_bytes: Callable[[], int],
        *,
        collection: str | None = None,
        cleanup: Callable[[], object] = _nothing,
        spill: Ask = _nothing,
        evict: Ask = _nothing,
        limit: Ask = _nothing,
    ) -> None:
        super().__init__(name)
        self.collection: Final = name if collection is None else collection
        self._told_bytes = owned_bytes
        self._cleanup = cleanup
        self._spill = spill
        self._evict = evict
        self._limit = limit
        self._limited_to: int | None = None
        self._last_told = 0

    def owned_bytes(self) -> int:
        """What the holder says; what it said last while it cannot tell."""
        try:
            self._last_told = self._told_bytes()
        except Exception:
            log.exception("%s cannot tell its bytes; the last figure holds", self.name)
        return self._last_told

    def collections(self) -> list[CollectionUse]:
        """One, with one entry: it is asked as a whole."""
        owned = self.owned_bytes()
        return [CollectionUse(self.collection, 1, owned)] if owned else []

    def apply(self, budgets: Budgets) -> str | None:
        """Tell the holder a new ceiling, lower or higher."""
        ceiling = budgets.components.get(self.name)
        if ceiling is None or ceiling == self._limited_to:
            return None
        problem = self._asked(self._limit, ceiling).problem
        if problem is None:
            self._limited_to = ceiling
        return problem

    def expire(self) -> Removed:
        """Let it drop what costs nobody anything."""
        return self._asked(lambda _none: self._cleanup(), 0)

    def spill(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Let it put about so many bytes where they can be had again."""
        if not ranking.may_evict(self.collection, priority):
            return Removed()
        return self._asked(self._spill, target_bytes)

    def give_up(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Let it drop about so many bytes."""
        if target_bytes <= 0 or not ranking.may_evict(self.collection, priority):
            return Removed()
        return self._asked(self._evict, target_bytes)

    def _asked(self, function: Ask, byte_count: int) -> Removed:
        """Call it; what was freed is by how much less the holder owns now."""
        removed, before = Removed(), self.owned_bytes()
        try:
            function(byte_count)
        except Exception as error:
            log.exception("%s could not do what it was asked", self.name)
            removed.problem = f"{self.name}: {type(error).__name__}: {error}"
        freed = before - self.owned_bytes()
        if freed > 0:
            removed.count(self.collection, freed)
            removed.freed_bytes = freed
            # What it dropped may hang in cycles: freed is only what can go to the kernel.
            gc.collect()
        return removed
