"""Where a cache's values lie: in mapped segments that can be compacted and given back whole.

Covers: storing byte strings of any length, reading, releasing, compaction, exact resident bytes. Does not cover
which value goes (`replacement`, `cache`). Not thread-safe: the cache calls it under the ledger's lock.

Why not the heap: values that survive an eviction at random keep most of the heap's pages alive, and `malloc_trim`
returns half (docs/decisions/0003). A segment is its own anonymous mapping: unmapping it returns every byte at
once, whichever thread filled it.

Why spare segments: a fresh page costs 2 us, so a full cache that evicts for every value would spend 50 us on the
pages of 100 kB and 3 us on copying them. `resident_bytes` grows only when nothing is spare.
"""

from __future__ import annotations

import mmap
from typing import Final

from membudget_runtime.own_memory import PAGE_BYTES

SEGMENT_BYTES: Final = 512 * 1024
"""Small enough that an open segment and a compaction in flight cost little beside the smallest useful budget."""

ALONE_BYTES: Final = SEGMENT_BYTES // 4
"""Longer values get a segment of their own: page rounding wastes 3 % at most, and release needs no copy."""

SPARSE: Final = 0.9
"""A segment with more live bytes than this is not worth moving: under a tenth would be gained."""

SPARE_SEGMENTS: Final = 2
"""Emptied segments kept for the next values: what one eviction of the ledger empties."""

DEAD_EXTENTS: Final = 16
"""By so many may a segment list more released values than live ones, before the list is written anew: amortised,
a release looks at two extents."""

DEAD_EXTENT_BYTES: Final = 72
"""Heap bytes of a released value that its segment still lists: the extent, its place in the list."""


def page_bytes(length: int) -> int:
    """`length` rounded up to whole pages: by no more does storing a value grow what an arena holds."""
    return -(-length // PAGE_BYTES) * PAGE_BYTES


class Extent:
    """Where one value lies. Compaction moves it: read it only through its arena."""

    __slots__ = ("length", "offset", "segment")

    def __init__(self, segment: Segment | None, offset: int, length: int) -> None:
        self.segment = segment
        self.offset = offset
        self.length = length


class Segment:
    """One private anonymous mapping, filled from the front; `touched` counts its resident bytes."""

    __slots__ = ("extents", "live", "mapping", "size", "touched", "used", "values")

    def __init__(self, size: int) -> None:
        self.mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Huge pages would make untouched parts resident: the bytes would no longer be exact.
        self.mapping.madvise(mmap.MADV_NOHUGEPAGE)
        self.size = size
        self.touched = 0
        self.used = 0
        self.live = 0
        self.values = 0
        self.extents: list[Extent] = []


class SegmentArena:
    """Values in segments; `resident_bytes` is what the kernel charges for them."""

    def __init__(self) -> None:
        self._segments: set[Segment] = set()
        self._open: Segment | None = None
        self._spare: list[Segment] = []
        self.resident_bytes = 0
        self.held_bytes = 0
        """The resident bytes less what is spare: holds nothing and takes the next values."""
        self.live_bytes = 0
        """The held bytes less those of released values, which only compaction frees."""
        self.dead_extent_bytes = 0
        """Heap bytes of released values that are still listed; those of live ones are their owner's to count."""

    def store(self, value: bytes) -> Extent:
        """Copy the value in."""
        extent = Extent(None, 0, len(value))
        self._place(self._segment_for(len(value)), extent, value)
        return extent

    def read(self, extent: Extent) -> bytes:
        """A copy of the value."""
        segment = extent.segment
        assert segment is not None, "the extent was released"
        return segment.mapping[extent.offset : extent.offset + extent.length]

    def release(self, extent: Extent) -> None:
        """Forget the value; a segment with no value left is spare or unmapped at once."""
        segment = extent.segment
        assert segment is not None, "the extent was released before"
        segment.values -= 1
        segment.live -= extent.length
        self.live_bytes -= extent.length
        self.dead_extent_bytes += DEAD_EXTENT_BYTES
        extent.segment, extent.offset, extent.length = None, 0, 0
        if segment.values == 0:
            self._retire(segment)
        elif len(segment.extents) > 2 * segment.values + DEAD_EXTENTS:
            self._forget_dead(segment)

    def move_sparsest(self) -> bool:
        """Move the values of the sparsest segment into others; False when no move would pay."""
        sparsest = min(
            (segment for segment in self._segments if segment is not self._open),
            key=lambda segment: segment.live / max(segment.used, 1),
            default=None,
        )
        if sparsest is None or sparsest.live > SPARSE * sparsest.used:
            return False
        for extent in sparsest.extents:
            if extent.segment is sparsest:
                value = self.read(extent)
                self._place(self._segment_for(extent.length), extent, value)
                self.live_bytes -= extent.length
        self._retire(sparsest)
        return True

    def give_back_spare(self) -> None:
        """Unmap what is spare."""
        while self._spare:
            self._unmap(self._spare.pop())
        if self._open is not None:
            self._cut(self._open)

    def clear(self) -> None:
        """Unmap everything; extents handed out before must not be used again."""
        for segment in (*self._segments, *self._spare):
            self._unmap(segment)
        self._segments.clear()
        self._spare.clear()
        self._open = None
        self.held_bytes = self.live_bytes = self.dead_extent_bytes = 0

    def _segment_for(self, length: int) -> Segment:
        if length > ALONE_BYTES:
            self.give_back_spare()
            return self._map(page_bytes(length))
        opened = self._open
        if opened is not None and self._takes(opened, length):
            return opened
        if opened is not None:
            self._cut(opened)
        segment = self._spare.pop() if self._spare else self._map(SEGMENT_BYTES)
        self._segments.add(segment)
        self._open = segment
        return segment

    def _takes(self, opened: Segment, length: int) -> bool:
        end = opened.used + length
        return end <= SEGMENT_BYTES and (end <= opened.touched or not self._spare)

    def _place(self, segment: Segment, extent: Extent, value: bytes) -> None:
        end = segment.used + extent.length
        segment.mapping[segment.used : end] = value
        self.held_bytes += page_bytes(end) - page_bytes(segment.used)
        extent.segment, extent.offset = segment, segment.used
        segment.used = end
        segment.values += 1
        segment.live += extent.length
        segment.extents.append(extent)
        self.live_bytes += extent.length
        if end > segment.touched:
            touched = page_bytes(end)
            self.resident_bytes += touched - segment.touched
            segment.touched = touched

    def _retire(self, segment: Segment) -> None:
        """Take an emptied segment out of use; the last one leaves nothing behind."""
        self.dead_extent_bytes -= (len(segment.extents) - segment.values) * DEAD_EXTENT_BYTES
        segment.extents.clear()
        self.held_bytes -= page_bytes(segment.used)
        segment.used = segment.live = segment.values = 0
        if segment is not self._open:
            self._segments.discard(segment)
            if segment.size == SEGMENT_BYTES and len(self._spare) < SPARE_SEGMENTS:
                self._spare.append(segment)
            else:
                self._unmap(segment)
        if not any(used.values for used in self._segments):
            self.clear()

    def _forget_dead(self, segment: Segment) -> None:
        """List live values only."""
        self.dead_extent_bytes -= (len(segment.extents) - segment.values) * DEAD_EXTENT_BYTES
        segment.extents = [extent for extent in segment.extents if extent.segment is segment]

    def _map(self, size: int) -> Segment:
        segment = Segment(size)
        self._segments.add(segment)
        return segment

    def _cut(self, segment: Segment) -> None:
        """Give back the pages behind the last value."""
        kept = page_bytes(segment.used)
        if segment.touched > kept:
            segment.mapping.madvise(mmap.MADV_DONTNEED, kept, segment.touched - kept)
            self.resident_bytes -= segment.touched - kept
            segment.touched = kept

    def _unmap(self, segment: Segment) -> None:
        self.resident_bytes -= segment.touched
        segment.mapping.close()
