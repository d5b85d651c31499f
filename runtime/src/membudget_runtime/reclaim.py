"""Gives bytes back when asked: new budgets, cleanup, spill, eviction, collection.

Covers: carrying out one request of the control socket in steps that never hold the ledger's lock for long. Does
not decide when or how much (the sidecar's ladder) and does not verify with the kernel (the sidecar again).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Final

from membudget_contract.control_api import Budgets, Freed, FreeRequest, Means
from membudget_contract.policy import EVICTABLE, Priority
from membudget_runtime.bounds import bounds_of
from membudget_runtime.component import Component, Removed
from membudget_runtime.ledger import STEP_BYTES, Ledger

SPILL_STEP_BYTES: Final = 4 * STEP_BYTES
"""Written between two looks at the time."""

COLLECT_FROM_BYTES: Final = 4 * STEP_BYTES
"""Freed at once: from there on a full collection pays. It finds nothing, but empties the interpreter's lists of free
objects, of which a hundred floats may keep as many arenas of 1 MiB: a twentieth of 40 MiB freed, as measured."""

PASSES: Final = 3
"""Looks at the signal while coming down to new bounds: what a pass gives back shows only after it."""


class Reclaimer:
    """Carries out requests; one at a time is the caller's duty."""

    def __init__(self, ledger: Ledger, start: Budgets, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._start = start
        self._clock = clock

    def apply(self, budgets: Budgets) -> Freed:
        """Hold new budgets, and come down to them: ceilings first, then the room, then cold mapped pages.

        In Observe mode only what admission goes by changes (`Ledger.set_bounds`): nothing is given back, trimmed or
        set otherwise than it was.
        """
        self._ledger.set_bounds(bounds_of(budgets, self._start))
        before, removed = self._owned(), Removed()
        if not budgets.live:
            return self._freed(before, removed, Priority.HIGH, candidates=0)
        candidates = self._candidates(Priority.HIGH)
        for component in self._ledger.components:
            problem = component.apply(budgets)
            removed.problem = removed.problem or problem
        removed.add(self._come_down())
        return self._freed(before, removed, Priority.HIGH, candidates)

    def enforce(self) -> Freed:
        """Come down to the bounds that hold, where something grew over them unasked. Nothing in Observe mode."""
        before, removed, candidates = self._owned(), Removed(), 0
        if self._ledger.bounds.live:
            candidates = self._candidates(Priority.HIGH)
            removed = self._come_down()
        return self._freed(before, removed, Priority.HIGH, candidates)

    def free(self, request: FreeRequest) -> Freed:
        """Carry out one request; never touches Critical data, whatever it says."""
        before = self._owned()
        up_to = min(request.up_to, Priority.HIGH, key=lambda priority: priority.rank)
        candidates = 0
        match request.means:
            case Means.CLEANUP:
                candidates = self._entries()
                removed = self._cleanup(request.target_bytes)
            case Means.SPILL:
                candidates = self._candidates(up_to)
                removed = self._spill(request.target_bytes, up_to, request.within_seconds)
                self._page_out(request.target_bytes - removed.freed_bytes)
            case Means.EVICT:
                candidates = self._candidates(up_to)
                removed = self._evict(request.target_bytes, up_to)
                self._page_out(request.target_bytes - removed.freed_bytes)
            case Means.COLLECT:
                gc.collect()
                removed = Removed()
            case Means.TRIM:
                removed = Removed()
        self.hand_back(removed.freed_bytes)
        return self._freed(before, removed, up_to, candidates)

    def hand_back(self, freed_bytes: int) -> None:
        """Let the kernel have what was freed: where it is much, from the interpreter's own allocator too."""
        if freed_bytes >= COLLECT_FROM_BYTES:
            gc.collect()
        self._ledger.trim()

    def _come_down(self) -> Removed:
        removed = Removed()
        for component in self._ledger.components:
            removed.add(self._come_under_ceiling(component))
        for _ in range(PASSES):
            self._ledger.trim()
            over = self._ledger.over_bytes()
            if over <= 0:
                break
            removed.add(self._evict(over, Priority.HIGH))
            self._page_out(self._ledger.over_bytes())
        self.hand_back(removed.freed_bytes)
        return removed

    def _owned(self) -> int:
        with self._ledger.lock:
            return sum(map(self._ledger.owned_bytes, self._ledger.components))

    def _entries(self) -> int:
        """All entries: an expiry looks at each."""
        with self._ledger.lock:
            return sum(use.entries for component in self._ledger.components for use in component.collections())

    def _candidates(self, up_to: Priority) -> int:
        """Entries that an eviction or a spill up to this class might take."""
        with self._ledger.lock:
            ranking = self._ledger.bounds.ranking
            return sum(
                use.entries
                for component in self._ledger.components
                for use in component.collections()
                if any(ranking.may_evict(use.name, priority) for priority in EVICTABLE[: up_to.rank + 1])
            )

    def _cleanup(self, target_bytes: int) -> Removed:
        """What costs no one anything: expired entries, unreachable objects, mapped pages that nobody reads."""
        removed = Removed()
        for component in self._ledger.components:
            removed.add(component.expire())
        gc.collect()
        self._page_out(target_bytes - removed.freed_bytes)
        return removed

    def _spill(self, target_bytes: int, up_to: Priority, within_seconds: float | None) -> Removed:
        removed = Removed()
        until = math.inf if within_seconds is None else self._clock() + within_seconds
        for priority in EVICTABLE[: up_to.rank + 1]:
            for component in sorted(self._ledger.components, key=lambda part: part.owned_bytes(), reverse=True):
                while (missing := target_bytes - removed.freed_bytes) > 0 and removed.problem is None:
                    if self._clock() >= until:
                        removed.problem = f"stopped after {within_seconds} s: the disk is too slow for this"
                        break
                    step = component.spill(min(missing, SPILL_STEP_BYTES), priority, self._ledger.bounds.ranking)
                    removed.add(step)
                    if not step.progressed():
                        break
        return removed

    def _evict(self, target_bytes: int, up_to: Priority) -> Removed:
        removed = Removed()
        for priority in EVICTABLE[: up_to.rank + 1]:
            while (missing := target_bytes - removed.freed_bytes) > 0:
                step = self._ledger.evict(min(STEP_BYTES, missing), priority)
                removed.add(step)
                if not step.progressed():
                    break
            for component in sorted(self._ledger.components, key=lambda part: part.owned_bytes(), reverse=True):
                removed.add(
                    component.give_up(target_bytes - removed.freed_bytes, priority, self._ledger.bounds.ranking)
                )
        return removed

    def _come_under_ceiling(self, component: Component) -> Removed:
        removed = Removed()
        while True:
            with self._ledger.lock:
                step = self._ledger.evict_over_ceiling(component, 0, Priority.HIGH)
                ceiling = self._ledger.ceiling(component.name)
                over = 0 if ceiling is None else self._ledger.held_bytes(component) - ceiling
            removed.add(step)
            if not step.progressed():
                break
        for priority in EVICTABLE:
            given = component.give_up(over, priority, self._ledger.bounds.ranking)
            removed.add(given)
            over -= given.freed_bytes
        if over > 0 and self._ledger.bounds.counts_mapped():
            component.page_out(over)
        return removed

    def _page_out(self, target_bytes: int) -> None:
        """Give back mapped pages, where the signal has them: elsewhere it would only slow down queries."""
        if not self._ledger.bounds.counts_mapped():
            return
        for component in self._ledger.components:
            if target_bytes <= 0:
                return
            target_bytes -= component.page_out(target_bytes)

    def _freed(self, before: int, removed: Removed, up_to: Priority, candidates: int) -> Freed:
        return Freed(
            owned_before_bytes=before,
            owned_after_bytes=self._owned(),
            entries=removed.entries,
            candidates=candidates,
            collections=removed.collections,
            exhausted=not self._candidates(up_to),
            problem=removed.problem,
        )
