"""What happened to a cache since its start.

Covers: counters and the ratio made of them. Does not cover bytes (`cache`, `report`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CacheCounters:
    """Events since the start; `hits` and `loads` overlap: a value that came back from disk counts in both."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0
    compressions: int = 0
    spills: int = 0
    loads: int = 0
    damaged: int = 0
    refused: int = 0

    @property
    def hit_ratio(self) -> float | None:
        """Hits of all look-ups; None before the first."""
        looked_up = self.hits + self.misses
        return self.hits / looked_up if looked_up else None
