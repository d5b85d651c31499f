"""Places at which a test ends this process, to prove that an acknowledged write is there again in its successor.

Covers: the names of the places, and the environment variable that arms one. Does not cover what happens at a place, nor
the end itself (`membudget_contract.failpoint`). Neighbour: `tests/engine/test_write_crashes.py` ends a real writer at
each of them.
"""

from __future__ import annotations

import enum
import os
from typing import Final

from membudget_contract.failpoint import arm

VARIABLE: Final = "MEMBUDGET_FAILPOINT"
"""Set to `name:k`, it ends the process when the place is passed for the k-th time; else `passed` does nothing."""


class Failpoint(enum.StrEnum):
    """In the order in which a writer comes by."""

    BEFORE_COMMIT = "before-commit"
    """A write is checked and admitted, nothing of it is on the disk."""
    AFTER_COMMIT = "after-commit"
    """It is on the disk; no query finds it, nobody was told."""
    APPLIED = "applied"
    """Queries find it; nobody was told."""
    SEAL_BEGUN = "seal-begun"
    CHUNKS_SEALED = "chunks-sealed"
    """Store and vectors of a new segment are written, its index is not; the same in a compaction."""
    INDEX_WRITTEN = "index-written"
    """Every file of it is synced, no generation has it."""
    SEGMENT_PLACED = "segment-placed"
    """It has its name, no generation names it."""
    MANIFEST_WRITTEN = "manifest-written"
    """The folder is complete under its hidden name."""
    PUBLISHED = "published"
    """It has its name; the folder above is not synced, the former generations are all there."""
    OLD_REMOVED = "old-removed"
    """All but the fallback are gone; queries still have the former generation."""
    EXCHANGED = "exchanged"
    """Queries have the new one; the log still holds what it sealed."""
    PURGED = "purged"
    COMPACTION_BEGUN = "compaction-begun"
    SEGMENTS_MERGED = "segments-merged"
    """The merged segment is whole in its hidden folder; seals have gone on meanwhile."""
    COMPACTED = "compacted"
    """Queries have the merged segment."""
    RELOAD_OPENED = "reload-opened"
    """A newer generation is open and not served."""
    RELOAD_EXCHANGED = "reload-exchanged"


passed = arm(Failpoint, os.environ.get(VARIABLE))
"""Called at each place; from any thread."""
