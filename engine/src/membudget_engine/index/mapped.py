"""Covers one index file served from a mapping: opening and searching it.

It does not cover finding and verifying a generation (generations), what FAISS is let to read (faiss_reader), measuring
and giving back its resident pages (paged_file), nor codes with rows (compact).

The FAISS object stays private: on a mapped index `add` and `reset` abort the process and `remove_ids` is a segmentation
fault, so nothing here leads to them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexClosed, IndexInvalid, QueryInvalid
from membudget_engine.index.effort import Effort
from membudget_engine.index.faiss_reader import ListedIndex, ServedIndex, part_addresses, read_mapped
from membudget_engine.index.manifest import INDEX_FILE, Manifest
from membudget_engine.index.page_advice import MADV_NORMAL, advise, file_mapping_at
from membudget_engine.index.page_order import PageOrder
from membudget_engine.index.paged_file import PagedFile

RowIds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Opened:
    """Everything that lives as long as the mapping; a call holds one, so close() cannot unmap beneath it."""

    index: ServedIndex
    pages: PagedFile


class MappedIndex:
    """An index whose vectors stay in the page cache. Every method may be called from any thread."""

    def __init__(self, file: Path, count: int, opened: _Opened) -> None:
        """Use open()."""
        self._file = file
        self._count = count
        self._opened: _Opened | None = opened

    @classmethod
    def open(cls, directory: Path, manifest: Manifest) -> "MappedIndex":
        """Maps the index of a generation whose files were verified.

        Raises IndexInvalid when it is not what its manifest says or FAISS did not map it, OSError when the kernel
        refuses.
        """
        file = directory / INDEX_FILE
        index = read_mapped(file, manifest)
        starts, ends = part_addresses(index)
        mapping = file_mapping_at(int(starts.max()))
        if mapping is None or ends.max() > mapping.range.end:
            raise IndexInvalid(f"{file} was loaded into anonymous memory, not mapped: its type cannot be served")
        # FAISS asks for MADV_RANDOM, with which every page of a cold or tight index is a read of its own: 4.5 queries
        # a second instead of 60 on 393 MB under a limit of 150 MB.
        advise(mapping.range, MADV_NORMAL)
        order = PageOrder(starts, ends, mapping.range)
        return cls(file, manifest.count, _Opened(index, PagedFile(file, mapping, order)))

    def search(self, vectors: Vectors, k: int, effort: Effort = Effort.FULL) -> tuple[Vectors, RowIds]:
        """The rows with the largest inner products: scores and row ids, both (len(vectors), min(k, count)).

        Vectors are (n, dimension) float32. Where the probed lists hold fewer than k rows the id is -1. Raises
        QueryInvalid, IndexClosed.
        """
        opened = self._open()
        index = opened.index
        if vectors.ndim != 2 or vectors.shape[1] != index.d or vectors.dtype != np.float32 or k < 1:  # noqa: PLR2004
            raise QueryInvalid(
                f"{vectors.dtype} vectors of shape {vectors.shape} and k {k}; this index takes float32 of shape "
                f"(n, {index.d}) and k from 1"
            )
        k = min(k, self._count)
        if not isinstance(index, ListedIndex):
            return index.search(vectors, k)
        likeness, lists = index.quantizer.search(vectors, index.nprobe)
        # FAISS passes over a list of -1.
        lists[:, effort.of(index.nprobe) :] = -1
        opened.pages.order.probed(lists)
        return index.search_preassigned(vectors, k, lists, likeness)

    def resident_bytes(self) -> int:
        """Bytes of the mapping in this process's page table: its share of RSS. Raises OSError, IndexClosed."""
        return self._open().pages.resident_bytes()

    def mapped_bytes(self) -> int:
        """Size of the mapping: what resident_bytes() can grow to. Raises IndexClosed."""
        return self._open().pages.mapping.range.size

    def is_file_backed(self) -> bool:
        """Whether the kernel has a file behind the vectors, asked anew. Raises OSError, IndexClosed."""
        return self._open().pages.is_file_backed()

    def page_out(self, target_bytes: int) -> int:
        """As PagedFile.page_out, list by list. Centroids stay, every query needs them. Raises OSError, IndexClosed."""
        return self._open().pages.page_out(target_bytes)

    def warm(self) -> None:
        """As PagedFile.warm. Raises OSError, IndexClosed."""
        self._open().pages.warm()

    def close(self) -> None:
        """Drops the index; the file is unmapped when the last call in flight ends. May be called twice."""
        self._opened = None

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise IndexClosed(f"{self._file} was closed: ask the collection for its present index")
        return opened
