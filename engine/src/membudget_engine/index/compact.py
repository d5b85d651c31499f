"""Covers a compact index served: RaBitQ codes in memory choose candidates, float16 rows in a mapping put them in order.

It does not cover building (compact_build), what FAISS is let to read (compact_codes), rows (float_rows) nor giving
pages back (paged_file). The codes cannot be given back: they are what makes the rest of the file cold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexClosed, IndexInvalid, QueryInvalid
from membudget_engine.index.compact_codes import CompactCodes, RotatedQuery, owned_bytes, read_codes, read_order
from membudget_engine.index.effort import Effort, compared_rows
from membudget_engine.index.float_rows import FloatRows, Positions, likeness, prefetch
from membudget_engine.index.manifest import CODES_FILE, ORDER_FILE, ROWS_FILE, Manifest
from membudget_engine.index.page_advice import file_mapping_at
from membudget_engine.index.page_order import PageOrder
from membudget_engine.index.paged_file import PagedFile

_RowIds = npt.NDArray[np.int64]

_LEAST: Final = float(np.finfo(np.float32).min)
"""The score where there is no row."""


@dataclass(frozen=True)
class _Opened:
    """Everything that lives as long as the mapping; a call holds one, so close() cannot unmap beneath it."""

    codes: CompactCodes
    rows: FloatRows
    row_ids: npt.NDArray[np.int32]
    pages: PagedFile


class Candidates(NamedTuple):
    """What the codes of one index put first for one query, best first; whoever has it keeps the rows mapped."""

    likeness: Vectors
    """By code."""
    positions: Positions
    opened: _Opened

    @property
    def rows(self) -> _RowIds:
        """Their row ids."""
        return self.opened.row_ids[self.positions].astype(np.int64)

    def only(self, which: npt.NDArray[np.bool_] | _RowIds) -> "Candidates":
        """Some of them, by a flag for each or by their places."""
        return self._replace(likeness=self.likeness[which], positions=self.positions[which])


class CompactIndex:
    """An index with its codes in anonymous memory and its vectors mapped. Any method may be called from any thread."""

    def __init__(self, directory: Path, manifest: Manifest, opened: _Opened) -> None:
        """Use open()."""
        self._directory = directory
        self._manifest = manifest
        self._opened: _Opened | None = opened
        self.owned_bytes = owned_bytes(manifest)
        """Anonymous memory, until it is closed."""

    @classmethod
    def open(cls, directory: Path, manifest: Manifest) -> "CompactIndex":
        """Loads the codes and maps the rows of a generation whose files were verified.

        Raises IndexInvalid when it is not what its manifest says, OSError when the kernel refuses.
        """
        codes = read_codes(directory / CODES_FILE, manifest)
        row_ids = read_order(directory / ORDER_FILE, manifest)
        file = directory / ROWS_FILE
        rows = FloatRows(file, manifest.count, manifest.dimension)
        mapping = file_mapping_at(rows.range.start)
        if mapping is None:
            raise IndexInvalid(f"{file} is in anonymous memory, not mapped")
        order = PageOrder(rows.addresses(codes.first[:-1]), rows.addresses(codes.first[1:]), mapping.range)
        return cls(directory, manifest, _Opened(codes, rows, row_ids, PagedFile(file, mapping, order)))

    def search(self, vectors: Vectors, k: int, effort: Effort = Effort.FULL) -> tuple[Vectors, _RowIds]:
        """As MappedIndex.search, with scores of float16 rows. Raises QueryInvalid, IndexClosed."""
        opened = self._asked(vectors, k)
        k = min(k, self._manifest.count)
        wanted = max(k, compared_rows(self._manifest, k, effort))
        found_scores = np.empty((len(vectors), k), dtype=np.float32)
        found_rows = np.empty((len(vectors), k), dtype=np.int64)
        found_scores[:], found_rows[:] = _LEAST, -1
        for number, rotated in enumerate(RotatedQuery(vectors).under(opened.codes)):
            scores, (rows,) = compared(vectors[number], [_by_code(opened, rotated, wanted)])
            best = (-scores).argsort(kind="stable")[:k]
            found_scores[number, : len(best)], found_rows[number, : len(best)] = scores[best], rows[best]
        return found_scores, found_rows

    def candidates(self, query: RotatedQuery, wanted: int) -> Candidates:
        """So many rows for one vector of shape (1, dimension), or all of the probed lists. Raises as `search`."""
        opened = self._asked(query.vectors, wanted)
        return _by_code(opened, query.under(opened.codes)[0], min(wanted, self._manifest.count))

    def resident_bytes(self) -> int:
        """Bytes of the rows in this process's page table: their share of RSS. Raises OSError, IndexClosed."""
        return self._open().pages.resident_bytes()

    def mapped_bytes(self) -> int:
        """Size of the mapping: what resident_bytes() can grow to. Raises IndexClosed."""
        return self._open().pages.mapping.range.size

    def is_file_backed(self) -> bool:
        """Whether the kernel has a file behind the rows, asked anew. Raises OSError, IndexClosed."""
        return self._open().pages.is_file_backed()

    def page_out(self, target_bytes: int) -> int:
        """As PagedFile.page_out: rows go list by list, codes stay. Raises OSError, IndexClosed."""
        return self._open().pages.page_out(target_bytes)

    def warm(self) -> None:
        """As PagedFile.warm. Raises OSError, IndexClosed."""
        self._open().pages.warm()

    def close(self) -> None:
        """Drops codes and mapping when the last call in flight ends. May be called twice."""
        self._opened = None

    def _asked(self, vectors: Vectors, k: int) -> _Opened:
        opened = self._open()
        expected = self._manifest.dimension
        if vectors.ndim != 2 or vectors.shape[1] != expected or vectors.dtype != np.float32 or k < 1:  # noqa: PLR2004
            raise QueryInvalid(
                f"{vectors.dtype} vectors of shape {vectors.shape} and k {k}; this index takes float32 of shape "
                f"(n, {expected}) and k from 1"
            )
        return opened

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise IndexClosed(f"{self._directory} was closed: ask the collection for its present index")
        return opened


def _by_code(opened: _Opened, rotated: Vectors, wanted: int) -> Candidates:
    return Candidates(*opened.codes.scan.first(rotated, wanted), opened)


def compared(query: Vectors, chosen: Sequence[Candidates]) -> tuple[Vectors, list[_RowIds]]:
    """Scores of these by their float16 rows, index after index, and the row ids of each index in the same order.

    The pages of all are asked for in one call. Raises OSError.
    """
    in_file = [(one.opened, np.sort(one.positions)) for one in chosen]
    parts = [(opened.rows, own) for opened, own in in_file if len(own)]
    scores = np.zeros(0, dtype=np.float32)
    if parts:
        prefetch(parts)
        for opened, own in in_file:
            opened.pages.order.probed(opened.codes.first[1:].searchsorted(own, side="right"))
        scores = likeness(query, parts)
    return scores, [opened.row_ids[own].astype(np.int64) for opened, own in in_file]
