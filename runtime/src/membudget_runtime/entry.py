"""One cached value's record, and the lists that records stand in.

Covers: what is known of a value beside its bytes, and doubly linked lists threaded through the records themselves: a
list costs no table of its own, and taking a record out of its middle no search; walks over lists that change
meanwhile. Does not cover where a value lies (`arena`) nor which list a record belongs to (`replacement`). Not
thread-safe.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import chain
from typing import Final, Generic, TypeVar

from membudget_runtime.arena import Extent
from membudget_runtime.spill import SpillPlace

Key = TypeVar("Key", bound=Hashable)


SPILLED_BYTES: Final = 160
"""Heap bytes more of an entry whose value is on disk: where it lies there. Shorter values stay in memory."""

RECORD_BYTES: Final = 256
"""Weight of an entry in an order, beside its value's length: about what it costs on the heap."""

STEP_ENTRIES: Final = 1000
"""Looked at under one hold of the ledger's lock: 100 us."""

DROP_ENTRIES: Final = 64
"""Dropped, or moved together, under one hold: 100 us."""


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
    """Entries from the one that stands there longest to the newest; `weight` sums their values' lengths and records."""

    __slots__ = ("count", "first", "last", "walks", "weight")

    def __init__(self) -> None:
        self.first: Entry[Key] | None = None
        self.last: Entry[Key] | None = None
        self.count = 0
        self.weight = 0
        self.walks: list[_Walk[Key]] = []
        """Those that have not passed all of it."""

    def __iter__(self) -> Iterator[Entry[Key]]:
        """Oldest first."""
        return chain.from_iterable(steps_through((self,)))

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
        self.weight += entry.length + RECORD_BYTES

    def remove(self, entry: Entry[Key]) -> None:
        """Take out an entry of this list."""
        if self.walks:
            for walk in tuple(self.walks):  # one that is given up ends without the lock
                walk.note_leaving(entry)
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
        self.weight -= entry.length + RECORD_BYTES


class _Walk(Generic[Key]):
    """Where one walk stands, and what left its lists before it was done."""

    __slots__ = ("left", "next")

    def __init__(self) -> None:
        self.next: Entry[Key] | None = None
        self.left: list[Entry[Key]] = []

    def note_leaving(self, entry: Entry[Key]) -> None:
        """An entry leaves a list; it may be for another place."""
        self.left.append(entry)
        if entry is self.next:
            self.next = entry.after

    def through(self, entries: EntryList[Key]) -> Iterator[list[Entry[Key]]]:
        """As many as stand there now: what comes goes behind them."""
        ahead, self.next = entries.count, entries.first
        while ahead > 0 and self.next is not None:
            step: list[Entry[Key]] = []
            while self.next is not None and len(step) < min(STEP_ENTRIES, ahead):
                step.append(self.next)
                self.next = self.next.after
            ahead -= len(step)
            yield step


def steps_through(lists: Iterable[EntryList[Key]]) -> Iterator[list[Entry[Key]]]:
    """The lists one after another, oldest first, STEP_ENTRIES at a time; entries may come, leave and move between two.

    What is there from the first step to the last is met, wherever it was moved meanwhile; what was moved comes at the
    end and may come twice. Of what came since, some may be met.
    """
    walk: _Walk[Key] = _Walk()
    ahead = list(lists)
    for entries in ahead:
        entries.walks.append(walk)
    try:
        while ahead:
            yield from walk.through(ahead[0])
            ahead.pop(0).walks.remove(walk)
    finally:
        for entries in ahead:
            entries.walks.remove(walk)
    for start in range(0, len(walk.left), STEP_ENTRIES):
        yield [entry for entry in walk.left[start : start + STEP_ENTRIES] if entry.queue is not None]
