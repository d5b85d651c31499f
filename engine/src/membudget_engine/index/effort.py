"""Covers how hard a search tries, and what it costs in memory while it runs.

It does not cover who decides (query_room). Less effort probes fewer lists and compares fewer rows: fewer pages are
brought in, fewer rows are copied, and some true neighbours are missed.
"""

import enum
from typing import Final

from membudget_engine.index.manifest import Manifest

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


def query_bytes(manifest: Manifest, hits: int) -> int:
    """Anonymous bytes of one query at full effort: rows compared as float16 and float32, its vector, its hits."""
    vector = manifest.dimension * 4
    compared = -(-hits * manifest.rerank // 10)
    return compared * (vector + vector // 2) + 2 * vector + hits * _HIT_BYTES
