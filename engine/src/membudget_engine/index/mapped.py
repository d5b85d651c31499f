"""Covers one index file served from a mapping: opening, searching, measuring and giving back its resident pages.

It does not cover finding and verifying a generation (generations), what FAISS is let to read (faiss_reader),
the order in which parts of the index go cold (page_order) nor the kernel calls (page_advice). It never
decides when to give pages back.

The FAISS object stays private: on a mapped index `add` and `reset` abort the process and `remove_ids` is a segmentation
fault, so nothing here leads to them.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from membudget_engine.embedder import Vectors
from membudget_engine.errors import IndexClosed, IndexInvalid, QueryInvalid
from membudget_engine.index.faiss_reader import ServedIndex, part_addresses, read_mapped
from membudget_engine.index.manifest import INDEX_FILE, Manifest
from membudget_engine.index.page_advice import (
    MADV_COLD,
    MADV_DONTNEED,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    PAGE_BYTES,
    FileMapping,
    PageRange,
    advise,
    drop_from_page_cache,
    file_mapping_at,
    resident_bytes,
    resident_pages,
    touch,
)
from membudget_engine.index.page_order import PageOrder

RowIds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Opened:
    """Everything that lives as long as the mapping; a call holds one, so close() cannot unmap beneath it."""

    index: ServedIndex
    mapping: FileMapping
    order: PageOrder


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
        return cls(file, manifest.count, _Opened(index, mapping, PageOrder(starts, ends, mapping.range)))

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, RowIds]:
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
        if isinstance(index, faiss.IndexFlatIP):
            return index.search(vectors, k)
        likeness, lists = index.quantizer.search(vectors, index.nprobe)
        opened.order.probed(lists)
        return index.search_preassigned(vectors, k, lists, likeness)

    def resident_bytes(self) -> int:
        """Bytes of the mapping in this process's page table: its share of RSS. Raises OSError, IndexClosed."""
        return resident_bytes(self._open().mapping.range)

    def mapped_bytes(self) -> int:
        """Size of the mapping: what resident_bytes() can grow to. Raises IndexClosed."""
        return self._open().mapping.range.size

    def is_file_backed(self) -> bool:
        """Whether the kernel has a file behind the vectors, asked anew. Raises OSError, IndexClosed."""
        return file_mapping_at(self._open().mapping.range.start) is not None

    def page_out(self, target_bytes: int) -> int:
        """Gives back at least target_bytes if so much is resident, the longest unused lists first, in whole lists.

        They leave the page cache as well, unless another process maps them. Returns the bytes that left residency, as
        the page table says before and after: more than the lists hold where the kernel unmaps the rest of a large
        folio, which stays in the page cache, and less when queries bring pages in meanwhile.
        Centroids stay, every query needs them. Takes about 0.3 ms for each MB. Raises OSError, IndexClosed.
        """
        opened = self._open()
        if target_bytes <= 0:
            return 0
        before = resident_pages(opened.mapping.range)
        for pages in opened.order.coldest(before, target_bytes):
            self._give_back(opened.mapping, pages)
        return max(0, int(np.count_nonzero(before)) * PAGE_BYTES - resident_bytes(opened.mapping.range))

    def warm(self) -> None:
        """Reads the whole file into memory; it may be dropped again at once when there is no room for it.

        Raises OSError, IndexClosed.
        """
        opened = self._open()
        try:
            advise(opened.mapping.range, MADV_POPULATE_READ)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            touch(opened.mapping.range)

    def close(self) -> None:
        """Drops the index; the file is unmapped when the last call in flight ends. May be called twice."""
        self._opened = None

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise IndexClosed(f"{self._file} was closed: ask the collection for its present index")
        return opened

    def _give_back(self, mapping: FileMapping, pages: PageRange) -> None:
        advise(pages, MADV_PAGEOUT)
        if resident_bytes(pages):
            # With return code 0 the kernel does nothing for a file that the process neither owns nor may write.
            # Large folios at both ends are split by MADV_COLD; whole, a query beside them would map all of them again.
            advise(pages, MADV_COLD)
            advise(pages, MADV_DONTNEED)
        # The parts of a folio that was split have left the page table, but not yet the memory.
        drop_from_page_cache(self._file, mapping, pages)
