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

    A page goes only when every part on it goes, and what lies beside the parts stays: one page missing at the edge of
    a hot part is a read from disk, and the read-ahead with it. Safe under threads without a lock: a tick is one write
    of a number that only grows, and a lost race between two queries orders two parts that were used at the same time.
    """

    def __init__(self, starts: _Int64, ends: _Int64, mapping: PageRange) -> None:
        """Addresses of the first byte of each part, and of the byte after its last.

        Addresses outside the mapping count as its nearest border: a list with no address (0 to 0) has no page.
        """
        self._mapping = mapping
        self._starts = np.clip(starts - mapping.start, 0, mapping.size)
        self._ends = np.clip(ends - mapping.start, 0, mapping.size)
        self._first_pages = -(-self._starts // PAGE_BYTES)
        self._end_pages = np.maximum(self._ends // PAGE_BYTES, self._first_pages)
        # The last is for no part, whose number is -1: to pick the others out would cost each query two more steps.
        self._last_probed = np.full(len(starts) + 1, -1, dtype=np.int64)
        self._ticks = itertools.count()

    def probed(self, parts: _Int64) -> None:
        """A query looked into these parts; -1 stands for none, as FAISS has it."""
        self._last_probed[parts] = next(self._ticks)

    def coldest(self, resident: npt.NDArray[np.bool_], target_bytes: int) -> list[PageRange]:
        """The ranges to give back for target_bytes, whole parts, those never probed first, then the longest unused.

        `resident` tells for each page of the mapping whether it is in memory: parts that are not do not count.
        Neighbouring parts come as one range, in the order of their addresses.
        """
        pages_before = np.concatenate(([0], np.cumsum(resident)))
        held = (pages_before[self._end_pages] - pages_before[self._first_pages]) * PAGE_BYTES
        # A part without a page of its own holds nothing, but must go for the page that it shares to go.
        on_shared_pages = (self._first_pages == self._end_pages) & (self._ends > self._starts)
        order = np.argsort(self._last_probed[:-1], kind="stable")
        order = order[(held > 0)[order] | on_shared_pages[order]]
        given = np.cumsum(held[order])
        enough = int(np.searchsorted(given, target_bytes)) + 1
        return self._joined(np.sort(self._starts[order[:enough]]), np.sort(self._ends[order[:enough]]))

    def _joined(self, starts: _Int64, ends: _Int64) -> list[PageRange]:
        """The whole pages under these parts. They do not overlap, so both arrays sorted alone still belong together."""
        if not len(starts):
            return []
        apart = np.flatnonzero(starts[1:] != ends[:-1])
        first_pages = -(-starts[np.insert(apart + 1, 0, 0)] // PAGE_BYTES)
        end_pages = ends[np.append(apart, len(ends) - 1)] // PAGE_BYTES
        base = self._mapping.start
        return [
            PageRange(base + first * PAGE_BYTES, base + end * PAGE_BYTES)
            for first, end in zip(first_pages.tolist(), end_pages.tolist(), strict=True)
            if first < end
        ]
