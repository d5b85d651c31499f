"""Covers how hard a search tries, and what it costs in memory while it runs.

It does not cover who decides (query_room). Less effort probes fewer lists and compares fewer rows: fewer pages are
brought in, fewer rows are copied, and some true neighbours are missed.
"""

import enum
from typing import Final

from membudget_engine.index.manifest import Manifest

HITS_OF_RERANK: Final = 10
"""The manifest's `rerank` is for so many hits; more hits have more rows compared, in proportion."""

MOST_OF_RERANK: Final = 3
"""Of several segments so many times the rows of one are compared, however many there are: twice as many lost some of
what was found by comparing each segment's own, more found no more (docs/decisions/0021)."""

REDUCED_SHARE: Final = 4
"""One in so many of the lists probed and of the rows compared."""

_HIT_BYTES: Final = 4_096
"""Of one hit while it is answered: its chunk from the store, and its text in the answer."""


class Effort(enum.Enum):
    """Of one search."""

    FULL = "full"
    REDUCED = "reduced"

    def of(self, amount: int) -> int:
        """So many lists or rows at this effort; one at least."""
        return amount if self is Effort.FULL else max(1, amount // REDUCED_SHARE)


def compared_rows(manifest: Manifest, hits: int, effort: Effort) -> int:
    """Of a generation or a segment: rows that a query for so many hits compares; 0 but for Compact."""
    segments = manifest.segments or (manifest,)
    rerank = max(segment.rerank for segment in segments)
    each = -(-hits * effort.of(rerank) // HITS_OF_RERANK) if rerank else 0
    return min(len(segments), MOST_OF_RERANK) * each


def query_bytes(manifest: Manifest, hits: int) -> int:
    """Anonymous bytes of one query at full effort: rows compared as float16 and float32, its vector, its hits."""
    vector = manifest.dimension * 4
    compared = compared_rows(manifest, hits, Effort.FULL)
    return compared * (vector + vector // 2) + 2 * vector + hits * _HIT_BYTES
