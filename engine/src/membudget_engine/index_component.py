"""The mapped indexes of all collections as one component of the ledger.

Covers: resident mapped pages, and giving cold ones back. Does not cover searching (`index.mapped`). The mapping is
file-backed: its pages cost nothing to drop, which is why only some signals count them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from membudget_contract.profiles import INDEX
from membudget_engine.errors import IndexClosed
from membudget_engine.index.loaded import PagedIndex
from membudget_runtime.component import Component

FRESH_SECONDS: Final = 1.0
"""Reading the page table costs 8 bytes a page; between readings, the signal as a whole tells of new pages."""


class IndexComponent(Component):
    """Bytes of the mapped indexes. `anonymous_bytes` is what opening them added to the heap, as measured."""

    def __init__(self, indexes: Sequence[PagedIndex], anonymous_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(INDEX)
        self._indexes = indexes
        self._anonymous = anonymous_bytes
        self._clock = clock
        self._read_at = -FRESH_SECONDS
        self._mapped: int | None = None

    def owned_bytes(self) -> int:
        """Heap bytes of the indexes: centroids and ids that are not mapped."""
        return self._anonymous

    def mapped_bytes(self) -> int | None:
        """Resident pages, read at most once a second; None when the page table could not be read."""
        if self._clock() - self._read_at >= FRESH_SECONDS:
            self._read_at = self._clock()
            self._mapped = self._resident_bytes()
        return self._mapped

    def page_out(self, target_bytes: int) -> int:
        """Give back the longest unused lists, index by index."""
        given = 0
        for index in self._indexes:
            if given >= target_bytes:
                break
            try:
                given += index.page_out(target_bytes - given)
            except (OSError, IndexClosed):
                continue
        self._read_at = -FRESH_SECONDS
        return given

    def _resident_bytes(self) -> int | None:
        try:
            return sum(index.resident_bytes() for index in self._indexes)
        except (OSError, IndexClosed):
            return None
