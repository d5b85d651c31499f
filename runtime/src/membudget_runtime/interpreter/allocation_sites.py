"""Where Python allocated what is still held: lines of code with bytes and blocks.

Covers: tracing allocations with the standard library's tracemalloc while it is asked for, bytes by site, and which
sites grew. Does not cover memory that native code allocates past Python, as FAISS does: only the process' figures
show it. Holds file names, line numbers and sizes, never what was allocated.

tracemalloc is imported when tracing starts: it brings pickle along, 0.4 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from membudget_contract.leak_detector_api import AllocationSite, SiteGrowth

FRAMES: Final = 3
SITE_AT_LEAST: Final = 4096
"""Smaller sites are not kept in a snapshot: thousands of them would be its largest part."""
GROWN_BYTES: Final = 1024 * 1024
LARGEST: Final = 20

Frames = tuple[str, ...]
"""`file:line`, outermost first."""


@dataclass(frozen=True, slots=True)
class SiteUse:
    """What one site holds."""

    held_bytes: int
    blocks: int


class AllocationTrace:
    """Tracing, from construction to `close`. Where somebody traces already, his depth holds and he goes on after."""

    def __init__(self) -> None:
        import tracemalloc

        self._tracemalloc = tracemalloc
        self._was_tracing = tracemalloc.is_tracing()
        if not self._was_tracing:
            tracemalloc.start(FRAMES)

    def close(self) -> None:
        """Stop; a second time does nothing."""
        if not self._was_tracing:
            self._tracemalloc.stop()

    def held_bytes(self) -> int:
        """Allocated while traced and not freed."""
        return self._tracemalloc.get_traced_memory()[0]

    def cost_bytes(self) -> int:
        """The tables of tracemalloc."""
        return self._tracemalloc.get_tracemalloc_memory()

    def sites(self) -> dict[Frames, SiteUse]:
        """Those that hold SITE_AT_LEAST; for a moment it takes 130 B for each traced block."""
        statistics = self._tracemalloc.take_snapshot().statistics("traceback")
        return {
            tuple(f"{frame.filename}:{frame.lineno}" for frame in statistic.traceback[-FRAMES:]): SiteUse(
                statistic.size, statistic.count
            )
            for statistic in statistics
            if statistic.size >= SITE_AT_LEAST and statistic.traceback[-1].filename != self._tracemalloc.__file__
        }


def grown_sites(first: Mapping[Frames, SiteUse], newest: Mapping[Frames, SiteUse]) -> tuple[SiteGrowth, ...]:
    """Sites that hold over GROWN_BYTES more; most gained first. What was too small to be kept counts as 0."""
    grown = [
        SiteGrowth(
            frames=frames,
            first_bytes=first[frames].held_bytes if frames in first else 0,
            newest_bytes=use.held_bytes,
        )
        for frames, use in newest.items()
    ]
    over = [growth for growth in grown if growth.newest_bytes - growth.first_bytes > GROWN_BYTES]
    return tuple(sorted(over, key=lambda growth: growth.first_bytes - growth.newest_bytes))


def largest_sites(sites: Mapping[Frames, SiteUse]) -> tuple[AllocationSite, ...]:
    """The LARGEST that hold most."""
    ranked = sorted(sites.items(), key=lambda item: item[1].held_bytes, reverse=True)
    return tuple(
        AllocationSite(frames=frames, held_bytes=use.held_bytes, blocks=use.blocks) for frames, use in ranked[:LARGEST]
    )
