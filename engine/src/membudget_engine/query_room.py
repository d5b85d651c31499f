"""Whether a query may be answered now, and with how much effort: it degrades before it is denied.

Covers: the memory of one query, admitted like everything else, so that caches give way to it first; less effort while
what no page-out gives back leaves no room; a retriable refusal when the process alone has filled the budget. Does not
cover what less effort means for an index (`index.effort`) nor work that needs no memory: deletes, health and control
are never refused.

Mapped pages that fill a budget by resident set degrade no query: the ladder gives them back, at the cost of a read.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from membudget_contract.profiles import WORKING
from membudget_engine.index.effort import Effort
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.ledger import Ledger

OVER_SHARE: Final = 0.25
"""Of the room's target: from the soft entry less its margin, 78 % of the budget, so much more is nearly all of it."""


class QueryRoom:
    """Admits queries. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.reduced = 0
        self.refused = 0

    @contextmanager
    def admitted(self, byte_count: int) -> Generator[Effort]:
        """Room for a query of so many bytes at full effort, until the block ends.

        Raises NoRoom when even the least would be too much: try again when memory has been given back.
        """
        try:
            self._ledger.set_aside(WORKING, byte_count, momentary=True)
        except (NoRoom, ValueTooLarge) as error:
            target = self._ledger.bounds.target_bytes
            over = self._ledger.unreclaimable_over_bytes()
            if target is None or over is None or over + byte_count <= 0:
                yield Effort.FULL
                return
            if over > OVER_SHARE * target:
                self.refused += 1
                reason = f"the process is {over} bytes over what it may hold ({target}), and nothing is left to evict"
                raise NoRoom(WORKING, byte_count, reason) from error
            self.reduced += 1
            yield Effort.REDUCED
            return
        try:
            yield Effort.FULL
        finally:
            self._ledger.return_reserved(WORKING, byte_count)
