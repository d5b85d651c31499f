"""Covers vectors written since the last generation: flat, in memory, found by their chunk's id.

It does not cover what keeps them (stores/write_log) nor which rows of the generation they replace (overlay). One
thread at a time changes it; any number search meanwhile: a row is filled before it is counted, and a newer row of an
id is there before the older one is dropped.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors

BLOCK_ROWS: Final = 256
"""Allocated at once, so that growing copies nothing and the bytes are exact."""

ROW_HEAP_BYTES: Final = 264
"""Of one row beside its vector: an id of 16 characters, its places in a dict and three lists, and its numbers; 219 to
264 as the dict's slots are filled, by tests/engine/test_delta_bytes.py (Python 3.11, x86-64)."""


class Delta:
    """Rows in the order they were written; those that a newer write replaced are dead until the next seal."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._blocks: list[Vectors] = []
        self._live: list[npt.NDArray[np.bool_]] = []
        self._ids: list[str] = []
        self._sequences: list[int] = []
        self._replaced: list[int] = []
        self._row_of: dict[str, int] = {}

    def __contains__(self, chunk_id: str) -> bool:
        return chunk_id in self._row_of

    def __len__(self) -> int:
        """Live rows."""
        return len(self._row_of)

    @property
    def owned_bytes(self) -> int:
        """Anonymous memory."""
        return len(self._blocks) * block_bytes(self._dimension)

    def growth_bytes(self, rows: int) -> int:
        """What so many rows more allocate."""
        missing = len(self._ids) + rows - len(self._blocks) * BLOCK_ROWS
        return max(0, -(-missing // BLOCK_ROWS)) * block_bytes(self._dimension)

    def grow(self, rows: int) -> None:
        """Allocates what so many rows more need. Raises MemoryError; then nothing changed."""
        while len(self._blocks) * BLOCK_ROWS < len(self._ids) + rows:
            block = np.zeros((BLOCK_ROWS, self._dimension), dtype=np.float32)
            self._live.append(np.zeros(BLOCK_ROWS, dtype=np.bool_))
            self._blocks.append(block)

    def put(self, chunk_id: str, vector: Vectors, sequence: int, replaced: int | None) -> None:
        """This vector is the id's from now on, and no more that of the generation's row `replaced`."""
        self.grow(1)
        row = len(self._ids)
        self._blocks[row // BLOCK_ROWS][row % BLOCK_ROWS] = vector
        self._sequences.append(sequence)
        self._replaced.append(-1 if replaced is None else replaced)
        self._ids.append(chunk_id)
        self._live[row // BLOCK_ROWS][row % BLOCK_ROWS] = True
        self._drop(self._row_of.get(chunk_id))
        self._row_of[chunk_id] = row

    def remove(self, chunk_id: str) -> bool:
        """Whether the id was there."""
        row = self._row_of.pop(chunk_id, None)
        self._drop(row)
        return row is not None

    def id_at(self, row: int) -> str:
        """The id of a row that was found, live or not by now."""
        return self._ids[row]

    def replaced_by(self, rows: Sequence[int]) -> set[int]:
        """The generation's rows that these replace."""
        return {self._replaced[row] for row in rows}

    def written_after(self, sequence: int) -> "Delta":
        """A delta of the live rows with larger numbers, over a generation in which they replace nothing yet."""
        newer = Delta(self._dimension)
        for chunk_id, row in self._row_of.items():
            if self._sequences[row] > sequence:
                newer.put(chunk_id, self._blocks[row // BLOCK_ROWS][row % BLOCK_ROWS], self._sequences[row], None)
        return newer

    def search(self, vector: Vectors, k: int) -> list[tuple[float, int]]:
        """The live rows with the largest inner products with a vector of shape (dimension,), best first."""
        found: list[tuple[float, int]] = []
        # Not over a copy of the list: a row replaced while this runs has its successor in this block or a later one.
        for number, block in enumerate(self._blocks):
            rows = np.flatnonzero(self._live[number])
            if len(rows):
                likeness = (block @ vector)[rows]
                best = np.argsort(-likeness, kind="stable")[:k]
                found += zip(likeness[best].tolist(), (rows[best] + number * BLOCK_ROWS).tolist(), strict=True)
        found.sort(key=lambda one: -one[0])
        newest = {self._ids[row]: row for row in sorted(row for _, row in found)}
        return [one for one in found if newest[self._ids[one[1]]] == one[1]][:k]

    def _drop(self, row: int | None) -> None:
        if row is not None:
            self._live[row // BLOCK_ROWS][row % BLOCK_ROWS] = False


def block_bytes(dimension: int) -> int:
    """Of one block with what its rows take beside their vectors."""
    return BLOCK_ROWS * (dimension * np.dtype(np.float32).itemsize + 1 + ROW_HEAP_BYTES)
