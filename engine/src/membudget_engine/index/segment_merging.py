"""Covers which segments of a collection are merged, and when: pure figures in, a run of neighbours out.

It does not cover merging them (sealing, publishing). Neighbours only: an id's newest row stays behind its older ones.
"""

from collections.abc import Sequence
from typing import Final

from membudget_engine.index.faiss_writer import FLAT_BELOW

MOST_BEFORE_MERGING: Final = 16
"""Segments: each is looked into by every query."""
DEAD_SHARE: Final = 0.2
"""Of all rows: every dead one is a row read in vain. A write that killed a row pays for five others' copy."""
DEAD_ROWS: Final = 1_000
"""And so many at least: a small collection is searched whole anyway."""


def too_many_dead(dead: int, rows: int) -> bool:
    """Whether so many dead rows are worth a copy of those that hold."""
    return dead >= max(DEAD_ROWS, DEAD_SHARE * rows) and dead < rows


def run_to_merge(rows: Sequence[int], dead: Sequence[int]) -> range | None:
    """The places of the segments that are to become one; None when nothing is due.

    All of them where too many rows are dead. From 16 on, the newest ones, as far back as the next older one is no
    larger than all of those together: so a row is copied about as often as a collection doubles, not at each seal. And
    the newest that have no lists, once there are enough rows in them for one that has: a query scores all rows of
    those, and for this a row is copied once.
    """
    if too_many_dead(sum(dead), sum(rows)):
        return range(len(rows))
    if len(rows) < MOST_BEFORE_MERGING:
        return _without_lists(rows, dead)
    first = len(rows) - 2
    while first and rows[first - 1] <= sum(rows[first:]):
        first -= 1
    return range(first, len(rows))


def _without_lists(rows: Sequence[int], dead: Sequence[int]) -> range | None:
    first = len(rows)
    while first and rows[first - 1] < FLAT_BELOW:
        first -= 1
    return range(first, len(rows)) if sum(rows[first:]) - sum(dead[first:]) >= FLAT_BELOW else None
