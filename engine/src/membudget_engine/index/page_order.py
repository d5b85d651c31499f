"""Covers which pages of a mapped index belong together, when each part was last used, and which goes first.

It does not cover asking the kernel (page_advice) nor searching (mapped). Pure apart from its own ticks.
"""

import itertools

import numpy as np
import numpy.typing as npt

from membudget_engine.index.page_advice import PAGE_BYTES, PageRange

_Int64 = npt.NDArray[np.int64]


class PageOrder:
    """Parts of a mapping, one for each inverted list, in the order of their last probe.

    A page belongs to the part that holds its first byte, so every page has one owner and giving back a cold part
    takes at most the first page's worth of a hotter one. Safe under threads without a lock: a tick is one write of
    a number that only grows, and a lost race between two queries orders two parts that were used at the same time.
    """

    def __init__(self, starts: _Int64, ends: _Int64, mapping: PageRange) -> None:
        """Addresses of the first byte of each part, and of the byte after its last.

        Addresses outside the mapping count as its nearest border: a list with no address (0 to 0) owns no page.
        """
        self._mapping = mapping
        self._first_pages = self._page_from(starts)
        self._end_pages = self._page_from(ends)
        self._last_probed = np.full(len(starts), -1, dtype=np.int64)
        self._ticks = itertools.count()

    def probed(self, parts: _Int64) -> None:
        """A query looked into these parts; -1 stands for none, as FAISS has it."""
        self._last_probed[parts[parts >= 0]] = next(self._ticks)

    def coldest(self, resident: npt.NDArray[np.bool_], target_bytes: int) -> list[PageRange]:
        """The ranges to give back for target_bytes, whole parts, those never probed first, then the longest unused.

        `resident` tells for each page of the mapping whether it is in memory: parts that are not do not count.
        Neighbouring parts come as one range, in the order of their addresses.
        """
        pages_before = np.concatenate(([0], np.cumsum(resident)))
        held = (pages_before[self._end_pages] - pages_before[self._first_pages]) * PAGE_BYTES
        order = np.argsort(self._last_probed, kind="stable")
        order = order[held[order] > 0]
        given = np.cumsum(held[order])
        enough = int(np.searchsorted(given, target_bytes)) + 1
        return self._joined(np.sort(self._first_pages[order[:enough]]), np.sort(self._end_pages[order[:enough]]))

    def _page_from(self, addresses: _Int64) -> _Int64:
        """Number within the mapping of the first page that begins at or after an address."""
        pages = -(-(addresses - self._mapping.start) // PAGE_BYTES)
        return np.clip(pages, 0, self._mapping.size // PAGE_BYTES)

    def _joined(self, first_pages: _Int64, end_pages: _Int64) -> list[PageRange]:
        # Parts do not overlap, so both arrays sorted alone still belong together.
        ranges: list[PageRange] = []
        for first, end in zip(first_pages.tolist(), end_pages.tolist(), strict=True):
            start = self._mapping.start + first * PAGE_BYTES
            stop = self._mapping.start + end * PAGE_BYTES
            if ranges and ranges[-1].end == start:
                start = ranges.pop().start
            ranges.append(PageRange(start, stop))
        return ranges
