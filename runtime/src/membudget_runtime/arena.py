"""Where a cache's values lie: in mapped segments that can be compacted and given back whole.

Covers: storing byte strings of any length, reading, releasing, compaction, exact resident bytes. Does not cover
which value goes (`replacement`, `cache`). Not thread-safe: the cache calls it under the ledger's lock.

Why not the heap: values that survive an eviction at random keep most of the heap's pages alive, and `malloc_trim`
returns half (docs/decisions/0003). A segment is its own anonymous mapping: unmapping it returns every byte at
once, whichever thread filled it.
"""

from __future__ import annotations

import mmap
from typing import Final

from membudget_runtime.own_memory import PAGE_BYTES

SEGMENT_BYTES: Final = 256 * 1024
"""Small enough that an open segment and a compaction in flight cost little beside the smallest useful budget."""

ALONE_BYTES: Final = 64 * 1024
"""Values from here on get a segment of their own: page rounding wastes 3 % at most, and release needs no copy."""

SPARSE: Final = 0.9
"""A segment with more live bytes than this is not worth moving: under a tenth would be gained."""


class Extent:
    """Where one value lies. Compaction moves it: read it only through its arena."""

    __slots__ = ("length", "offset", "segment")

    def __init__(self, segment: Segment | None, offset: int, length: int) -> None:
        self.segment = segment
        self.offset = offset
        self.length = length


class Segment:
    """One private anonymous mapping, filled from the front."""

    __slots__ = ("extents", "live", "mapping", "used")

    def __init__(self, size: int) -> None:
        self.mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Huge pages would make untouched parts resident: the bytes would no longer be exact.
        self.mapping.madvise(mmap.MADV_NOHUGEPAGE)
        self.used = 0
        self.live = 0
        self.extents: list[Extent] = []

    @property
    def resident(self) -> int:
        """Bytes of the pages touched so far."""
        return -(-self.used // PAGE_BYTES) * PAGE_BYTES


class SegmentArena:
    """Values in segments; `resident_bytes` is what the kernel charges for them."""

    def __init__(self) -> None:
        self._segments: set[Segment] = set()
        self._open: Segment | None = None
        self.resident_bytes = 0
        self.live_bytes = 0

    def store(self, value: bytes) -> Extent:
        """Copy the value in."""
        extent = Extent(None, 0, len(value))
        segment = self._segment_for(len(value))
        self._place(segment, extent, value)
        return extent

    def read(self, extent: Extent) -> bytes:
        """A copy of the value."""
        segment = extent.segment
        assert segment is not None, "the extent was released"
        return segment.mapping[extent.offset : extent.offset + extent.length]

    def release(self, extent: Extent) -> None:
        """Forget the value; a segment with no live value is unmapped at once."""
        segment = extent.segment
        assert segment is not None, "the extent was released before"
        extent.segment = None
        segment.live -= extent.length
        self.live_bytes -= extent.length
        if segment.live == 0:
            self._unmap(segment)

    def compact(self, target_bytes: int) -> None:
        """Move values out of the sparsest segments until at most `target_bytes` are resident, as far as it pays."""
        while self.resident_bytes > target_bytes:
            sparsest = min(
                (segment for segment in self._segments if segment is not self._open),
                key=lambda segment: segment.live / segment.used,
                default=None,
            )
            if sparsest is None or sparsest.live > SPARSE * sparsest.used:
                return
            self._move_out(sparsest)

    def clear(self) -> None:
        """Unmap everything; extents handed out before must not be used again."""
        for segment in list(self._segments):
            self._unmap(segment)
        self.live_bytes = 0

    def _segment_for(self, length: int) -> Segment:
        if length >= ALONE_BYTES:
            return self._map(-(-length // PAGE_BYTES) * PAGE_BYTES)
        if self._open is None or self._open.used + length > SEGMENT_BYTES:
            self._open = self._map(SEGMENT_BYTES)
        return self._open

    def _place(self, segment: Segment, extent: Extent, value: bytes) -> None:
        before = segment.resident
        extent.segment, extent.offset = segment, segment.used
        segment.mapping[extent.offset : extent.offset + extent.length] = value
        segment.used += extent.length
        segment.live += extent.length
        segment.extents.append(extent)
        self.live_bytes += extent.length
        self.resident_bytes += segment.resident - before

    def _move_out(self, segment: Segment) -> None:
        for extent in segment.extents:
            if extent.segment is segment:
                value = self.read(extent)
                segment.live -= extent.length
                self.live_bytes -= extent.length
                self._place(self._segment_for(extent.length), extent, value)
        self._unmap(segment)

    def _map(self, size: int) -> Segment:
        segment = Segment(size)
        self._segments.add(segment)
        return segment

    def _unmap(self, segment: Segment) -> None:
        self._segments.discard(segment)
        if segment is self._open:
            self._open = None
        self.resident_bytes -= segment.resident
        segment.mapping.close()
        segment.extents.clear()
