"""In which order answers go: whole ones before what was found.

Covers: two orders in one, told apart by the key. Does not cover either of them (`membudget_runtime.replacement`), nor
keys (`answer_keys`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from membudget_engine.caches.answer_keys import is_whole
from membudget_runtime.entry import Entry, EntryList
from membudget_runtime.replacement import AdaptiveFifo, Replacement


class WholeAnswersFirst(Replacement[bytes]):
    """What can be put together again from what was found goes before any of that."""

    reorders = AdaptiveFifo.reorders

    def __init__(self) -> None:
        self._whole: AdaptiveFifo[bytes] = AdaptiveFifo()
        self._found: AdaptiveFifo[bytes] = AdaptiveFifo()

    def steps(self) -> Iterator[list[Entry[bytes]]]:
        """Those of either order, which tells what was used."""
        yield from chain(self._whole.steps(), self._found.steps())

    def lists(self) -> Sequence[EntryList[bytes]]:
        """Whole answers first."""
        return (*self._whole.lists(), *self._found.lists())

    def __len__(self) -> int:
        return len(self._whole) + len(self._found)

    def add(self, entry: Entry[bytes]) -> None:
        """To the order of its kind."""
        self._of(entry).add(entry)

    def pop(self) -> Entry[bytes] | None:
        """A whole answer as long as there is one."""
        return self._whole.pop() or self._found.pop()

    def uses(self, entry: Entry[bytes]) -> int:
        """As the order of its kind counts."""
        return self._of(entry).uses(entry)

    def add_again(self, entry: Entry[bytes], uses: int) -> None:
        """To the order of its kind."""
        self._of(entry).add_again(entry, uses)

    def extra_bytes(self) -> int:
        """Of both."""
        return self._whole.extra_bytes() + self._found.extra_bytes()

    def _of(self, entry: Entry[bytes]) -> AdaptiveFifo[bytes]:
        return self._whole if is_whole(entry.key) else self._found
