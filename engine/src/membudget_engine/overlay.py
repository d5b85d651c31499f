"""What was written to a collection since its generation was sealed, laid over it for queries.

Covers: rows of the generation that hold no more, the delta searched beside it, and one answer of both. Does not cover
making writes durable (`stores.write_log`) nor sealing (`writer`). One thread at a time changes an overlay; any number
read meanwhile.

Rows are numbered through: those of the delta follow those of the generation. A replaced row is masked after its
successor can be found, and looked for before it; so a query finds one of them, never neither and never both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.index.delta import Delta
from membudget_engine.stores.write_log import Write, WriteLog

Nearest = Callable[[Vectors, int], list[tuple[float, int]]]
"""Scores and rows of a generation for a vector, best first; fewer than asked when there are no more to find."""


class Overlay:
    """The writes over one generation of `count` rows."""

    def __init__(self, count: int, dimension: int, log: WriteLog, delta: Delta | None = None) -> None:
        self.log = log
        self._count = count
        self.delta = Delta(dimension) if delta is None else delta
        self.masked = np.zeros(count, dtype=np.bool_)
        self.masked_rows = 0
        self.sequence = 0
        """Of the last write that queries see."""

    @property
    def owned_bytes(self) -> int:
        """Anonymous memory."""
        return self.delta.owned_bytes + self.masked.nbytes

    def apply(self, write: Write, sequence: int, row: int | None) -> bool:
        """Show a write that is durable; `row` is the id's in the generation. Whether something was there before."""
        held = write.id in self.delta or (row is not None and not self.masked[row])
        if write.vector is not None:
            self.delta.put(write.id, write.vector, sequence, row)
        else:
            self.delta.remove(write.id)
        self.mask(row)
        self.sequence = sequence
        return held

    def mask(self, row: int | None) -> None:
        """This row of the generation holds no more."""
        if row is not None and not self.masked[row]:
            self.masked[row] = True
            self.masked_rows += 1

    def find(self, nearest: Nearest, vector: Vectors, hits: int) -> list[tuple[float, int]]:
        """The best rows of generation and delta for one vector of shape (1, dimension)."""
        sealed = self._holding(nearest, vector, hits)
        written = self.delta.search(vector[0], hits)
        replaced = self.delta.replaced_by([row for _, row in written])
        both = [one for one in sealed if one[1] not in replaced]
        both += [(score, self._count + row) for score, row in written]
        both.sort(key=lambda one: -one[0])
        return both[:hits]

    def written_id(self, row: int) -> str | None:
        """The id of a row of the delta; None for one of the generation."""
        return None if row < self._count else self.delta.id_at(row - self._count)

    def _holding(self, nearest: Nearest, vector: Vectors, hits: int) -> list[tuple[float, int]]:
        """As the generation's own answer without the masked rows.

        Asks for more until enough hold or there are no more: no kind of index has to know of masks.
        """
        asked = hits if not self.masked_rows else 2 * hits
        while True:
            found = nearest(vector, asked)
            holding = [one for one in found if not self.masked[one[1]]]
            if len(holding) >= hits or len(found) < asked:
                return holding[:hits]
            asked *= 4
