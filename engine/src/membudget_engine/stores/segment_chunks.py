"""Covers the chunks of all segments of a generation as one store, their rows numbered through from the oldest on.

It does not cover the store of one segment (chunk_store) and its texts (chunk_texts), nor which rows hold
(index/dead_rows). Of the rows of an id only that in the newest segment may hold: it was written last.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import TypeVar

from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import ChunkStore
from membudget_engine.stores.chunk_texts import Text, Texts

_Read = TypeVar("_Read")


class SegmentChunks:
    """Reads stores and texts of the segments, from any number of threads; whoever opened them closes them."""

    def __init__(self, stores: Sequence[ChunkStore], texts: Sequence[Texts]) -> None:
        """Of each segment, oldest first."""
        self._stores = tuple(stores)
        self._texts = tuple(texts)
        self._first = tuple(accumulate((store.count() for store in self._stores), initial=0))

    def place(self, row: int) -> tuple[int, int]:
        """The segment of a row, and which of its rows it is."""
        number = bisect_right(self._first, row, hi=len(self._stores)) - 1
        return number, row - self._first[number]

    def get(self, rows: Sequence[int]) -> list[Chunk]:
        """The chunks of these rows in the order asked. Raises ChunkMissing for a row that is not there."""
        return self._read(rows, [store.get for store in self._stores])

    def texts(self, rows: Sequence[int]) -> list[Text]:
        """The same as JSON. Raises also OSError."""
        return self._read(rows, [texts.get for texts in self._texts])

    def held_texts(self, rows: Sequence[int]) -> list[Text] | None:
        """The same where memory has them all; None where a disk would be waited for."""
        held: list[Text] = []
        for row in rows:
            number, own = self.place(row)
            text = self._texts[max(0, number)].held([own])
            if text is None:
                return None
            held += text
        return held

    def row_of(self, chunk_id: str) -> int | None:
        """The newest row of this id, or None."""
        return self.rows_of([chunk_id]).get(chunk_id)

    def rows_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The newest row of each of these ids; those that are nowhere are left out."""
        missing: list[str] = [*ids]
        found: dict[str, int] = {}
        for first, store in zip(reversed(self._first[:-1]), reversed(self._stores), strict=True):
            if missing:
                found.update((chunk_id, first + row) for chunk_id, row in store.rows_of(missing).items())
                missing = [chunk_id for chunk_id in missing if chunk_id not in found]
        return found

    def has_path(self, path: str) -> bool:
        """Whether some chunk is of this file, one that holds no more too."""
        return any(store.has_path(path) for store in self._stores)

    def count(self) -> int:
        """How many chunks there are, with those that hold no more."""
        return self._first[-1]

    def _read(self, rows: Sequence[int], readers: Sequence[Callable[[Sequence[int]], list[_Read]]]) -> list[_Read]:
        """What the readers of the segments give for these rows, in the order asked."""
        if len(readers) == 1:
            return readers[0](rows)
        wanted: dict[int, list[int]] = {}
        for row in rows:
            wanted.setdefault(max(0, self.place(row)[0]), []).append(row)
        found: dict[int, _Read] = {}
        for number, its_rows in wanted.items():
            own = [row - self._first[number] for row in its_rows]
            found.update(zip(its_rows, readers[number](own), strict=True))
        return [found[row] for row in rows]
