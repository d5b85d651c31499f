"""Where a cache's values lie: in mapped segments that can be compacted and given back whole.

Covers: storing byte strings of any length, reading, releasing, compaction, exact resident bytes. Does not cover
which value goes (`replacement`, `cache`). Not thread-safe: the cache calls it under the ledger's lock.

Why not the heap: values that survive an eviction at random keep most of the heap's pages alive, and `malloc_trim`
returns half (docs/decisions/0003). A segment is its own anonymous mapping: unmapping it returns every byte at
once, whichever thread filled it.

A released value leaves a hole, which the next value of its length fills (`holes`), until values are moved together.

Why spare segments: a fresh page costs 2 us, so a full cache that evicts for every value would spend 50 us on the
pages of 100 kB and 3 us on copying them. `resident_bytes` grows only when nothing is spare.
"""

from __future__ import annotations

import mmap
from typing import Final

from membudget_runtime.holes import Holes
from membudget_runtime.own_memory import PAGE_BYTES

SEGMENT_BYTES: Final = 512 * 1024
"""Small enough that an open segment and a compaction in flight cost little beside the smallest useful budget."""

ALONE_BYTES: Final = SEGMENT_BYTES // 4
"""Longer values get a segment of their own: page rounding wastes 3 % at most, and release needs no copy."""

SPARSE: Final = 0.9
"""A segment with more live bytes than this is not worth moving: under a tenth would be gained."""

SPARE_SEGMENTS: Final = 2
"""Emptied segments kept for the next values: what one eviction of the ledger empties."""


def page_bytes(length: int) -> int:
    """`length` rounded up to whole pages: by no more does storing a value grow what an arena holds."""
    return -(-length // PAGE_BYTES) * PAGE_BYTES


class Extent:
    """Where one value lies. Compaction moves it: read it only through its arena, or as `BoundedCache.get` does.

    The values of a segment are linked to each other by `earlier` and `later`.
    """

    __slots__ = ("earlier", "later", "length", "offset", "segment")

    def __init__(self) -> None:
        self.segment: Segment | None = None
        self.offset = 0
        self.length = 0
        """Kept when the value is released: it is as long on disk."""
        self.earlier: Extent | None = None
        self.later: Extent | None = None


class Segment:
    """One private anonymous mapping, filled from the front; `touched` counts its resident bytes.

    Bytes stay as they are until their value is released and another one fills the hole, or the segment is retired; then
    the mapping goes to a new segment, or away. No extent comes back to a place that it had. Who has read a value and
    finds its extent in the same place of the same segment still has read the value.
    """

    __slots__ = ("has_holes", "last", "live", "mapping", "size", "touched", "used", "values")

    def __init__(self, size: int, mapping: mmap.mmap, touched: int = 0) -> None:
        self.mapping = mapping
        self.size = size
        self.touched = touched
        self.used = 0
        self.live = 0
        self.values = 0
        self.has_holes = False
        self.last: Extent | None = None


def _mapped(size: int) -> mmap.mmap:
    try:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        # As the heap says it: the process is at a limit of its own (`process_guards`).
        raise MemoryError(f"no mapping of {size} bytes: {error.strerror}") from None
    # Huge pages would make untouched parts resident: the bytes would no longer be exact.
    mapping.madvise(mmap.MADV_NOHUGEPAGE)
    return mapping


class SegmentArena:
    """Values in segments; `resident_bytes` is what the kernel charges for them."""

    def __init__(self) -> None:
        self._segments: set[Segment] = set()
        self._open: Segment | None = None
        self._spare: list[Segment] = []
        self._holes = Holes()
        self._length = 0
        """Of the last value, as one number for many: each would be 28 bytes of heap, far from its extent."""
        self._values = 0
        self.resident_bytes = 0
        self.held_bytes = 0
        """The resident bytes less what is spare: holds nothing and takes the next values."""
        self.live_bytes = 0
        """The held bytes less those of released values, which only compaction frees."""

    def store(self, extent: Extent, value: bytes) -> None:
        """Copy the value in; the extent, which never had one, tells where it lies.

        Raises:
            MemoryError: the process may map no more; nothing changed.
        """
        length = len(value)
        if length == self._length:
            length = self._length
        else:
            self._length = length
        extent.length = length
        place = self._holes.take(length)
        if place is None:
            self._place(self._segment_for(length), extent, value)
            return
        segment, start = place
        segment.mapping[start : start + length] = value
        self._link(segment, start, extent)

    def store_again(self, extent: Extent, value: bytes) -> None:
        """The same for an extent that had this value before: not in a hole, which may be where that one lay."""
        extent.length = len(value)
        self._place(self._segment_for(len(value)), extent, value)

    def needed_bytes(self, length: int) -> int:
        """By how much storing a value may grow what is held."""
        return 0 if self._holes.has(length) else page_bytes(length)

    def read(self, extent: Extent) -> bytes:
        """A copy of the value."""
        segment = extent.segment
        assert segment is not None, "the extent was released"
        return segment.mapping[extent.offset : extent.offset + extent.length]

    def release(self, extent: Extent) -> None:
        """Forget the value; a segment with no value left is spare or unmapped at once."""
        segment = self._unlink(extent)
        self.live_bytes -= extent.length
        if segment.values == 0:
            self._retire(segment)
        else:
            segment.has_holes = True
            self._holes.add(segment, extent.offset, extent.length)

    def sparsest(self) -> Segment | None:
        """The segment that is to be emptied next; None when no move would pay."""
        sparsest = min(
            (segment for segment in self._segments if segment is not self._open),
            key=lambda segment: segment.live / max(segment.used, 1),
            default=None,
        )
        return None if sparsest is None or sparsest.live > SPARSE * sparsest.used else sparsest

    def move_out(self, segment: Segment, at_most: int) -> bool:
        """Move so many values of a segment into others; False when none can be mapped for them.

        With its last value the segment goes. It is not the open one.
        """
        for _ in range(min(at_most, segment.values)):
            extent = segment.last
            assert extent is not None, "each of its values is linked"
            value = self.read(extent)
            try:
                target = self._segment_for(extent.length)
            except MemoryError:
                return False
            self._unlink(extent)
            self.live_bytes -= extent.length
            self._place(target, extent, value)
            if not segment.values:
                self._retire(segment)
        return True

    def move_sparsest(self) -> bool:
        """Move the values of the sparsest segment into others; False when no move would pay, or none can be mapped."""
        sparsest = self.sparsest()
        return sparsest is not None and self.move_out(sparsest, sparsest.values)

    def give_back_spare(self) -> None:
        """Unmap what is spare."""
        self.shrink_spare(0)

    def shrink_spare(self, resident_bytes: int) -> None:
        """Unmap what is spare, as far as more than this is resident."""
        while self._spare and self.resident_bytes > resident_bytes:
            self._unmap(self._spare.pop())
        if self._open is not None and self.resident_bytes > resident_bytes:
            self._cut(self._open)

    def clear(self) -> None:
        """Unmap everything; extents handed out before must not be used again."""
        for segment in (*self._segments, *self._spare):
            self._unmap(segment)
        self._segments.clear()
        self._spare.clear()
        self._holes.clear()
        self._open = None
        self._values = self.held_bytes = self.live_bytes = 0

    def _segment_for(self, length: int) -> Segment:
        opened = self._open
        if length > ALONE_BYTES:
            self.give_back_spare()
            size = page_bytes(length)
            segment = Segment(size, _mapped(size))
        elif opened is not None and self._takes(opened, length):
            return opened
        else:
            if opened is not None:
                self._cut(opened)
            segment = self._spare.pop() if self._spare else Segment(SEGMENT_BYTES, _mapped(SEGMENT_BYTES))
            self._open = segment
        self._segments.add(segment)
        return segment

    def _takes(self, opened: Segment, length: int) -> bool:
        """Whether the open segment goes on.

        Where its next page would be a fresh one, a spare segment is taken rather, or given back for it: segments left
        at their beginning would have to be moved together one by one.
        """
        end = opened.used + length
        if end <= opened.touched:
            return True
        if end > SEGMENT_BYTES:
            return False
        if self._spare:
            if opened.used > SEGMENT_BYTES // 2:
                return False
            self._unmap(self._spare.pop())
        return True

    def _place(self, segment: Segment, extent: Extent, value: bytes) -> None:
        start = segment.used
        end = start + extent.length
        segment.mapping[start:end] = value
        segment.used = end
        held = page_bytes(end)
        self.held_bytes += held - page_bytes(start)
        if held > segment.touched:
            self.resident_bytes += held - segment.touched
            segment.touched = held
        self._link(segment, start, extent)

    def _link(self, segment: Segment, start: int, extent: Extent) -> None:
        segment.values += 1
        self._values += 1
        segment.live += extent.length
        self.live_bytes += extent.length
        last = segment.last
        extent.earlier = last
        if last is not None:
            last.later = extent
        segment.last = extent
        extent.offset = start
        extent.segment = segment

    def _unlink(self, extent: Extent) -> Segment:
        """Take the value off its segment's books. Who reads it just now sees so: the segment goes first."""
        segment = extent.segment
        assert segment is not None, "the extent was released before"
        extent.segment = None
        earlier, later = extent.earlier, extent.later
        if earlier is not None:
            earlier.later = later
        if later is None:
            segment.last = earlier
        else:
            later.earlier = earlier
        extent.earlier = extent.later = None
        segment.values -= 1
        self._values -= 1
        segment.live -= extent.length
        return segment

    def _retire(self, segment: Segment) -> None:
        """Take an emptied segment out of use; the last one leaves nothing behind."""
        self.held_bytes -= page_bytes(segment.used)
        self._segments.discard(segment)
        if segment.has_holes:
            self._holes.forget(segment)
        if segment is self._open:
            self._open = Segment(SEGMENT_BYTES, segment.mapping, segment.touched)
            self._segments.add(self._open)
        elif segment.touched == SEGMENT_BYTES and len(self._spare) < SPARE_SEGMENTS:
            self._spare.append(Segment(SEGMENT_BYTES, segment.mapping, segment.touched))
        else:
            self._unmap(segment)
        if not self._values:
            self.clear()

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
