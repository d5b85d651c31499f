"""Covers a compact index served: RaBitQ codes in memory choose candidates, float16 rows in a mapping put them in order.

It does not cover building (compact_build), what FAISS is let to read (compact_codes), rows (float_rows) nor giving
pages back (paged_file). The codes cannot be given back: they are what makes the rest of the file cold.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexClosed, IndexInvalid, QueryInvalid
from membudget_engine.index.compact_codes import CompactCodes, owned_bytes, read_codes, read_order
from membudget_engine.index.effort import Effort
from membudget_engine.index.float_rows import FloatRows, Positions
from membudget_engine.index.manifest import CODES_FILE, ORDER_FILE, ROWS_FILE, Manifest
from membudget_engine.index.page_advice import file_mapping_at
from membudget_engine.index.page_order import PageOrder
from membudget_engine.index.paged_file import PagedFile

HITS_OF_RERANK = 10
"""The manifest's `rerank` is for so many hits; more hits have more rows compared, in proportion."""

_RowIds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Opened:
    """Everything that lives as long as the mapping; a call holds one, so close() cannot unmap beneath it."""

    codes: CompactCodes
    rows: FloatRows
    row_ids: npt.NDArray[np.int32]
    pages: PagedFile


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
        opened = self._open()
        expected = self._manifest.dimension
        if vectors.ndim != 2 or vectors.shape[1] != expected or vectors.dtype != np.float32 or k < 1:  # noqa: PLR2004
            raise QueryInvalid(
                f"{vectors.dtype} vectors of shape {vectors.shape} and k {k}; this index takes float32 of shape "
                f"(n, {expected}) and k from 1"
            )
        count = self._manifest.count
        k = min(k, count)
        compared = min(count, max(1, -(-k * effort.of(self._manifest.rerank) // HITS_OF_RERANK)))
        _, candidates = opened.codes.index.search(vectors, max(k, compared))
        scores = np.full((len(vectors), k), -np.finfo(np.float32).max, dtype=np.float32)
        found = np.full((len(vectors), k), -1, dtype=np.int64)
        for query, positions, its_scores, its_rows in zip(vectors, candidates, scores, found, strict=True):
            _rank(opened, query, np.sort(positions[positions >= 0]), its_scores, its_rows)
        return scores, found

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

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise IndexClosed(f"{self._directory} was closed: ask the collection for its present index")
        return opened


def _rank(opened: _Opened, query: Vectors, positions: Positions, scores: Vectors, rows: _RowIds) -> None:
    """Writes the best of these rows into `scores` and `rows`, best first; what is not found stays as it is there."""
    if not len(positions):
        return
    opened.rows.prefetch(positions)
    opened.pages.order.probed(np.searchsorted(opened.codes.first, positions, side="right") - 1)
    likeness = opened.rows.likeness(query, positions)
    best = np.argsort(-likeness, kind="stable")[: len(rows)]
    scores[: len(best)] = likeness[best]
    rows[: len(best)] = opened.row_ids[positions[best]]
