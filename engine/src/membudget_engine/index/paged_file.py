"""Covers the pages of one mapped file: what is resident, giving back the coldest parts, reading all of it in.

It does not cover what the bytes mean (mapped, compact), which part goes first (page_order) nor the kernel calls
(page_advice). It never decides when to give pages back. Everything works on addresses: whoever holds one keeps the
mapping alive beside it.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from membudget_engine.index.page_advice import (
    MADV_COLD,
    MADV_DONTNEED,
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


@dataclass(frozen=True)
class PagedFile:
    """A mapping of a file and the order in which its parts go. Every method may be called from any thread."""

    file: Path
    mapping: FileMapping
    order: PageOrder

    def resident_bytes(self) -> int:
        """Bytes in this process's page table: its share of RSS. Raises OSError."""
        return resident_bytes(self.mapping.range)

    def is_file_backed(self) -> bool:
        """Whether the kernel has a file behind it, asked anew. Raises OSError."""
        return file_mapping_at(self.mapping.range.start) is not None

    def page_out(self, target_bytes: int) -> int:
        """Gives back at least target_bytes if so much is resident, the longest unused parts first, in whole parts.

        They leave the page cache as well, unless another process maps them. Returns the bytes that left residency, as
        the page table says before and after: more than the parts hold where the kernel unmaps the rest of a large
        folio, which stays in the page cache, and less when queries bring pages in meanwhile. Takes about 0.3 ms for
        each MB. Raises OSError.
        """
        if target_bytes <= 0:
            return 0
        before = resident_pages(self.mapping.range)
        for pages in self.order.coldest(before, target_bytes):
            self._give_back(pages)
        return max(0, int(np.count_nonzero(before)) * PAGE_BYTES - resident_bytes(self.mapping.range))

    def warm(self) -> None:
        """Reads the whole file into memory; it may be dropped again at once when there is no room. Raises OSError."""
        try:
            advise(self.mapping.range, MADV_POPULATE_READ)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            touch(self.mapping.range)

    def _give_back(self, pages: PageRange) -> None:
        advise(pages, MADV_PAGEOUT)
        if resident_bytes(pages):
            # With return code 0 the kernel does nothing for a file that the process neither owns nor may write.
            # Large folios at both ends are split by MADV_COLD; whole, a query beside them would map all of them again.
            advise(pages, MADV_COLD)
            advise(pages, MADV_DONTNEED)
        # The parts of a folio that was split have left the page table, but not yet the memory.
        drop_from_page_cache(self.file, self.mapping, pages)
