"""One segment of a collection as it is open: its index and its chunks, shared by every generation that has it.

Covers: opening, sharing, closing with the last holder, and its answer to a query without its dead rows. Does not cover
one answer of several (`segment_search`), which segments a collection has (`collection`) nor what was written since
(`overlay`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import numpy as np

from membudget_engine.embedder import Vectors
from membudget_engine.errors import ChunkStoreInvalid, IndexInvalid
from membudget_engine.index.compact import Candidates, CompactIndex
from membudget_engine.index.compact_codes import RotatedQuery
from membudget_engine.index.dead_rows import DeadRows
from membudget_engine.index.effort import Effort
from membudget_engine.index.generations import SegmentFolder
from membudget_engine.index.loaded import Index, LoadedIndex
from membudget_engine.index.mapped import MappedIndex, RowIds
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStore
from membudget_engine.stores.chunk_texts import TEXTS_FILE, ChunkTexts, EncodedChunks, Texts

_Found = TypeVar("_Found")


class Segment:
    """Open for as long as somebody holds it; whoever opened it does."""

    def __init__(self, folder: SegmentFolder, index: Index, chunks: ChunkStore, texts: Texts) -> None:
        """Use open()."""
        self.folder = folder
        self.index = index
        self.chunks = chunks
        self.texts = texts
        self._holders = 1
        self._counting = threading.Lock()

    @classmethod
    def open(cls, folder: SegmentFolder, kind: type[MappedIndex | LoadedIndex] = MappedIndex) -> Segment:
        """A segment whose files were verified. Raises IndexInvalid, ChunkStoreInvalid, OSError: it cannot be served."""
        manifest = folder.manifest
        compact = manifest.representation == "Compact"
        if compact and kind is LoadedIndex:
            raise IndexInvalid(
                f"{folder.directory} is Compact: its rows are served mapped, its codes are in memory already"
            )
        with ExitStack() as on_failure:
            index = (CompactIndex if compact else kind).open(folder.directory, manifest)
            on_failure.callback(index.close)
            chunks = ChunkStore(folder.directory / CHUNKS_FILE)
            on_failure.callback(chunks.close)
            if chunks.count() != manifest.count:
                raise ChunkStoreInvalid(
                    f"{folder.directory} has {chunks.count()} chunks, its manifest says {manifest.count}: rebuild it"
                )
            texts = EncodedChunks(chunks)
            if TEXTS_FILE in manifest.files:
                texts = ChunkTexts(folder.directory / TEXTS_FILE, manifest.count)
            segment = cls(folder, index, chunks, texts)
            on_failure.pop_all()
        return segment

    def shared(self) -> bool:
        """One holder more; False when it was closed before."""
        with self._counting:
            if not self._holders:
                return False
            self._holders += 1
            return True

    def close(self) -> None:
        """One holder less; the last one closes index and store, on which queries in flight finish."""
        with self._counting:
            self._holders = max(0, self._holders - 1)
            if self._holders:
                return
        self.index.close()
        self.texts.close()
        self.chunks.close()

    def find(self, vector: Vectors, hits: int, dead: DeadRows, effort: Effort) -> tuple[Vectors, RowIds]:
        """Scores and row ids of the nearest rows that hold, best first; -1 at the end is none, as FAISS has it.

        Raises as the index's search, and IndexInvalid where the index names a row that is not there.
        """

        def ask(asked: int) -> tuple[tuple[Vectors, RowIds], RowIds]:
            scores, rows = self.index.search(vector, asked, effort)
            self._check_rows(rows)
            return (scores[0], rows[0]), rows[0]

        if not dead.dead:
            return ask(hits)[0]
        (scores, rows), holding = _holding(ask, hits, dead)
        return scores[holding], rows[holding]

    def _check_rows(self, rows: RowIds) -> None:
        """Ids lie in the mapped file, where no look at its fields when it is opened comes by."""
        # As unsigned numbers from none, which is -1, on: all others that are not there are larger than the count.
        if (rows + 1).view(np.uint64).max(initial=0) > self.folder.manifest.count:
            raise IndexInvalid(
                f"{self.folder.directory} names rows beyond its {self.folder.manifest.count}: it is damaged, rebuild it"
            )

    def candidates(self, query: RotatedQuery, wanted: int, dead: DeadRows) -> Candidates:
        """Of a Compact segment: so many rows that hold, those that its codes put first, best first."""
        index = self.index
        assert isinstance(index, CompactIndex)

        def ask(asked: int) -> tuple[Candidates, RowIds]:
            found = index.candidates(query, asked)
            return found, found.rows

        if not dead.dead:
            return index.candidates(query, wanted)
        found, holding = _holding(ask, wanted, dead)
        return found.only(holding)


def _holding(ask: Callable[[int], tuple[_Found, RowIds]], wanted: int, dead: DeadRows) -> tuple[_Found, RowIds]:
    """What was found with its row ids, best first, and at which places of it are the first that hold.

    Asks for more until enough hold or there are no more: no kind of index has to know of dead rows.
    """
    asked = 2 * wanted
    while True:
        found, rows = ask(asked)
        there = rows >= 0
        holding = np.flatnonzero(there & ~dead.among(rows))
        if len(holding) >= wanted or np.count_nonzero(there) < asked:
            return found, holding[:wanted]
        asked *= 4
