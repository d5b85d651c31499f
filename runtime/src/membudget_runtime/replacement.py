"""Which entry of a class goes first: a default that adapts, least recently used, least frequently used.

Covers: the order inside one class of one cache. Does not cover classes (`cache`), nor where values lie (`arena`). The
default was chosen by benches/replacement.py; why: docs/decisions/0014. Not thread-safe: the cache calls it under the
ledger's lock, but for `uses`, which a hit may raise without.
"""

from __future__ import annotations

import abc
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import Final, Generic, TypeVar

from membudget_runtime.entry import RECORD_BYTES, Entry, EntryList, steps_through
from membudget_runtime.ghosts import Ghosts, Return

Key = TypeVar("Key", bound=Hashable)

MOST_USES: Final = 3
"""Rounds that an entry of the main queue is spared at most for having been used (S3-FIFO, SOSP 2023)."""

FIRST_SHARE: Final = 0.3
LEAST_SHARE: Final = 0.01
LARGEST_SHARE: Final = 0.9
"""Of the bytes, for new entries: at start, and the range the share moves in."""

RECENCY_SHARE: Final = 0.3
"""With a larger share the past counts for little: an entry is spared one round, however often it was used."""

REMEMBERED: Final = 0.9
"""Of the bytes: who comes back before so much left its queue is known."""

NEAR: Final = 0.05
"""Of the bytes: who comes back before so much left would have been found in a queue larger by so much."""

STEP_ENTRIES: Final = 32
"""By the bytes of so many entries the share moves for each that comes back so soon."""

LARGEST_STEP: Final = 0.01

LOOKS: Final = 256
"""Entries spared in a row before one goes in spite of its uses: 100 us. Bounds how long a search holds the lock."""

_AMOUNT_SHIFT: Final = 6
"""What left is counted in units of 64 bytes."""


class Replacement(abc.ABC, Generic[Key]):
    """The entries of one class of one cache, in the order in which they go."""

    reorders: bool = True
    """Whether a hit must call `use`, with the lock held; else it raises `uses` up to MOST_USES, and needs no lock."""

    def __iter__(self) -> Iterator[Entry[Key]]:
        """From the entry that goes first to the one that stays longest, as things stand."""
        return chain.from_iterable(self.steps())

    def steps(self) -> Iterator[list[Entry[Key]]]:
        """The same in steps, between which the lock may be released: as `steps_through` says."""
        yield from steps_through(self.lists())

    @abc.abstractmethod
    def lists(self) -> Sequence[EntryList[Key]]:
        """All entries as they stand: what goes first comes first, as far as nothing but its place counts."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many entries there are."""

    @abc.abstractmethod
    def add(self, entry: Entry[Key]) -> None:
        """Take in an entry, used now."""

    @abc.abstractmethod
    def pop(self) -> Entry[Key] | None:
        """Take out the entry that goes first; None where there is none."""

    def remove(self, entry: Entry[Key]) -> None:
        """Take out an entry that leaves for another reason than to make room."""
        assert entry.queue is not None, "the entry left before"
        entry.queue.remove(entry)

    def use(self, entry: Entry[Key]) -> None:
        """The entry was used now."""

    def uses(self, entry: Entry[Key]) -> int:
        """How often it was used, as far as that counts here: what an entry of the next life is added again with."""
        return entry.uses

    def add_again(self, entry: Entry[Key], uses: int) -> None:
        """Take in an entry of a former life."""
        entry.uses = uses
        self.add(entry)

    def extra_bytes(self) -> int:
        """What the order costs on the heap beside its entries."""
        return 0


class LeastRecentlyUsed(Replacement[Key]):
    """What was not used for longest goes first."""

    def __init__(self) -> None:
        self._entries: EntryList[Key] = EntryList()

    def lists(self) -> Sequence[EntryList[Key]]:
        """One."""
        return (self._entries,)

    def __len__(self) -> int:
        return self._entries.count

    def add(self, entry: Entry[Key]) -> None:
        """It goes last."""
        self._entries.append(entry)

    def pop(self) -> Entry[Key] | None:
        """The oldest."""
        entry = self._entries.first
        if entry is not None:
            self._entries.remove(entry)
        return entry

    def use(self, entry: Entry[Key]) -> None:
        """It now goes last."""
        self._entries.remove(entry)
        self._entries.append(entry)


class LeastFrequentlyUsed(Replacement[Key]):
    """What was used least often since it came goes first; among those the one whose last use is longest ago."""

    def __init__(self) -> None:
        self._by_uses: dict[int, EntryList[Key]] = {}

    def lists(self) -> Sequence[EntryList[Key]]:
        """The least used first."""
        return [self._by_uses[uses] for uses in sorted(self._by_uses)]

    def __len__(self) -> int:
        return sum(entries.count for entries in self._by_uses.values())

    def add(self, entry: Entry[Key]) -> None:
        """It goes behind those used as often."""
        entries = self._by_uses.get(entry.uses)
        if entries is None:
            entries = self._by_uses[entry.uses] = EntryList()
        entries.append(entry)

    def pop(self) -> Entry[Key] | None:
        """The oldest of those used least."""
        if not self._by_uses:
            return None
        entry = self._by_uses[min(self._by_uses)].first
        assert entry is not None, "an empty list is forgotten"
        self.remove(entry)
        return entry

    def remove(self, entry: Entry[Key]) -> None:
        """And forget its list where it was alone."""
        super().remove(entry)
        if not self._by_uses[entry.uses].count:
            del self._by_uses[entry.uses]

    def use(self, entry: Entry[Key]) -> None:
        """Once more than before."""
        self.remove(entry)
        entry.uses += 1
        self.add(entry)


class AdaptiveFifo(Replacement[Key]):
    """Two queues: new entries wait in one until they are used again, those that were stand in the other.

    S3-FIFO with a share of its own finding. A miss on what left a queue just before says what that queue would have
    gained by a few entries more; the share of the bytes that new entries get moves to where both would gain alike.
    With steady popularity it falls to a hundredth: little is lost to keys that never come back, a scan among them.
    After a shift it rises, and the order becomes that of the last use. A hit raises a number and moves nothing.
    """

    reorders = False

    def __init__(self) -> None:
        self._new: EntryList[Key] = EntryList()
        self._main: EntryList[Key] = EntryList()
        self._ghosts = Ghosts()
        self.new_share = FIRST_SHARE
        """Of the bytes, for entries not used again yet: what adapts."""

    def steps(self) -> Iterator[list[Entry[Key]]]:
        """What was not used, then what was. Each is asked once: a hit raises `uses` at any moment, without the lock."""
        used: list[list[Entry[Key]]] = []
        for step in super().steps():
            by_use: tuple[list[Entry[Key]], list[Entry[Key]]] = [], []
            for entry in step:
                by_use[entry.uses > 0].append(entry)
            used.append(by_use[True])
            yield by_use[False]
        yield from used

    def lists(self) -> Sequence[EntryList[Key]]:
        """The new ones first."""
        return (self._new, self._main)

    def __len__(self) -> int:
        return self._new.count + self._main.count

    def add(self, entry: Entry[Key]) -> None:
        """To the main queue when it is known to come back, else to the new ones."""
        back = self._ghosts.recall(hash((entry.collection, entry.key)))
        if (back is not None and self._is_soon(entry, back)) or entry.uses:
            self._main.append(entry)
        else:
            self._new.append(entry)

    def pop(self) -> Entry[Key] | None:
        """The next unused one, sparing those that were used."""
        new, main = self._new, self._main
        self._ghosts.hold(new.count + main.count)
        for spared in range(LOOKS + 1):
            from_main = main.count > 0 and new.weight < self.new_share * (new.weight + main.weight)
            entries = main if from_main else new
            entry = entries.first
            if entry is None:
                return None
            entries.remove(entry)
            if not entry.uses or spared == LOOKS:
                amount = (entry.length + RECORD_BYTES) >> _AMOUNT_SHIFT
                self._ghosts.remember(hash((entry.collection, entry.key)), amount, from_main=from_main)
                return entry
            entry.uses = entry.uses - 1 if from_main and self.new_share <= RECENCY_SHARE else 0
            main.append(entry)
        raise AssertionError("the last look takes an entry")

    def uses(self, entry: Entry[Key]) -> int:
        """Once more for standing in the main queue: it came back before."""
        return entry.uses + (entry.queue is self._main)

    def add_again(self, entry: Entry[Key], uses: int) -> None:
        """To the main queue when it was used twice, else to the new ones, where once spares it as well."""
        if uses > 1:
            entry.uses = min(MOST_USES, uses - 1)
            self._main.append(entry)
        else:
            entry.uses = uses
            self._new.append(entry)

    def extra_bytes(self) -> int:
        """The marks of those that left."""
        return self._ghosts.byte_count

    def _is_soon(self, entry: Entry[Key], back: Return) -> bool:
        """Whether it left not long ago; how long also tells which queue should be larger."""
        left_since = back.left_since << _AMOUNT_SHIFT
        weight = entry.length + RECORD_BYTES
        total = self._new.weight + self._main.weight + weight
        if left_since <= NEAR * total:
            self._learn(weight / total, more_for_new=not back.from_main)
        return left_since <= REMEMBERED * total

    def _learn(self, entry_share: float, *, more_for_new: bool) -> None:
        step = min(LARGEST_STEP, STEP_ENTRIES * entry_share)
        moved = self.new_share + (step if more_for_new else -step)
        self.new_share = min(LARGEST_SHARE, max(LEAST_SHARE, moved))
