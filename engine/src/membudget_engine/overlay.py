"""What was written to a collection since its generation was sealed, laid over it for queries.

Covers: rows of the generation that hold no more, the delta searched beside it, and one answer of both. Does not cover
making writes durable (`stores.write_log`) nor sealing (`publishing`). One thread at a time changes an overlay; any
number read meanwhile.

Rows are numbered through: from the oldest segment to the newest, then those of the delta. A replaced row is dead after
its successor can be found, and looked for before it; so a query finds one of them, never neither and never both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from membudget_engine.embedder import Vectors
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.delta import Delta
from membudget_engine.segment_search import Found
from membudget_engine.stores.write_log import Write, WriteLog

Nearest = Callable[[Vectors, int], list[Found]]
"""Scores and rows of a generation that hold, best first; fewer than asked when there are no more."""


class Overlay:
    """The writes over one generation, with what is dead of each of its segments as it begins."""

    def __init__(self, dead: Sequence[DeadRows], dimension: int, log: WriteLog, delta: Delta | None = None) -> None:
        self.log = log
        self.dead = tuple(rows.copy() for rows in dead)
        self._first = tuple(accumulate((rows.count for rows in self.dead), initial=0))
        self.delta = Delta(dimension) if delta is None else delta
        self.sequence = 0
        """Of the last write that queries see."""

    @property
    def owned_bytes(self) -> int:
        """Anonymous memory."""
        return self.delta.owned_bytes + sum(rows.owned_bytes for rows in self.dead)

    @property
    def dead_rows(self) -> int:
        """Of all segments."""
        return sum(rows.dead for rows in self.dead)

    def apply(self, write: Write, sequence: int, row: int | None) -> bool:
        """Show a write that is durable; `row` is the id's in the generation. Whether something was there before."""
        held = write.id in self.delta or (row is not None and not self.is_dead(row))
        if write.vector is not None:
            self.delta.put(write.id, write.vector, sequence, row)
        else:
            self.delta.remove(write.id)
        self.end(row)
        self.sequence = sequence
        return held

    def end(self, row: int | None) -> None:
        """This row of the generation holds no more."""
        if row is not None:
            number = bisect_right(self._first, row, hi=len(self.dead)) - 1
            self.dead[number].add(row - self._first[number])

    def is_dead(self, row: int) -> bool:
        """Whether this row of the generation holds no more."""
        number = bisect_right(self._first, row, hi=len(self.dead)) - 1
        return row - self._first[number] in self.dead[number]

    def find(self, nearest: Nearest, vector: Vectors, hits: int) -> list[Found]:
        """The best rows of generation and delta for one vector of shape (1, dimension)."""
        sealed = nearest(vector, hits)
        written = self.delta.search(vector[0], hits)
        replaced = self.delta.replaced_by([row for _, row in written])
        both = [one for one in sealed if one[1] not in replaced]
        both += [(score, self._first[-1] + row) for score, row in written]
        both.sort(key=lambda one: -one[0])
        return both[:hits]

    def written_id(self, row: int) -> str | None:
        """The id of a row of the delta; None for one of the generation."""
        return None if row < self._first[-1] else self.delta.id_at(row - self._first[-1])
