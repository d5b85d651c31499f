"""One cached value's record, and the lists that records stand in.

Covers: what is known of a value beside its bytes, and doubly linked lists threaded through the records themselves: a
list costs no table of its own, and taking a record out of its middle no search. Does not cover where a value lies
(`arena`) nor which list a record belongs to (`replacement`). Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain
from typing import Final, Generic, TypeVar

from membudget_runtime.arena import Extent
from membudget_runtime.spill import SpillPlace

Key = TypeVar("Key", bound=Hashable)


SPILLED_BYTES: Final = 160
"""Heap bytes more of an entry whose value is on disk: where it lies there. Shorter values stay in memory."""

STEP_ENTRIES: Final = 1000
"""Looked at, or dropped, under one hold of the ledger's lock: some milliseconds."""


class Entry(Extent, Generic[Key]):
    """A value under a key: an extent of the arena while it is in memory, a `spilled` place while it is on disk.

    `uses` belongs to the replacement; `before`, `after` and `queue` to the list it stands in.
    """

    __slots__ = ("after", "before", "collection", "expires_at", "key", "packed", "queue", "spilled", "uses")

    def __init__(self, key: Key, collection: str, *, packed: bool, expires_at: float) -> None:
        # What `Extent.__init__` does, here: a call less for each value that comes.
        self.segment = None
        self.offset = self.length = 0
        self.earlier = self.later = None
        self.key = key
        self.collection = collection
        self.packed = packed
        self.expires_at = expires_at
        self.spilled: SpillPlace | None = None
        self.uses = 0
        self.queue: EntryList[Key] | None = None
        self.before: Entry[Key] | None = None
        self.after: Entry[Key] | None = None

    def beside_bytes(self) -> int:
        """What it costs beside its record: its value, or where that lies on disk."""
        return SPILLED_BYTES if self.segment is None else self.length


class EntryList(Generic[Key]):
    """Entries from the one that stands there longest to the newest; `byte_count` sums their values' lengths."""

    __slots__ = ("byte_count", "count", "first", "last")

    def __init__(self) -> None:
        self.first: Entry[Key] | None = None
        self.last: Entry[Key] | None = None
        self.count = 0
        self.byte_count = 0

    def __iter__(self) -> Iterator[Entry[Key]]:
        """Oldest first."""
        return chain.from_iterable(self.steps())

    def steps(self) -> Iterator[list[Entry[Key]]]:
        """Oldest first, STEP_ENTRIES at a time and as many as there are now; entries may come and leave between two.

        It goes on behind the last of a step that still stands here. Where none does it begins anew, at the oldest:
        what was yielded before and stands here still is then yielded again.
        """
        left, entry = self.count, self.first
        while left > 0 and entry is not None:
            step: list[Entry[Key]] = []
            while entry is not None and len(step) < min(STEP_ENTRIES, left):
                step.append(entry)
                entry = entry.after
            left -= len(step)
            yield step
            last = next((each for each in reversed(step) if each.queue is self), None)
            if last is None:
                left, entry = self.count, self.first
            else:
                entry = last.after

    def append(self, entry: Entry[Key]) -> None:
        """Add an entry that stands in no list."""
        last = self.last
        entry.queue, entry.before, entry.after = self, last, None
        if last is None:
            self.first = entry
        else:
            last.after = entry
        self.last = entry
        self.count += 1
        self.byte_count += entry.length

    def remove(self, entry: Entry[Key]) -> None:
        """Take out an entry of this list."""
        before, after = entry.before, entry.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        entry.queue = entry.before = entry.after = None
        self.count -= 1
        self.byte_count -= entry.length
