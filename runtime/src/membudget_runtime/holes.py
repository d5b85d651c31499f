"""Places of released values between live ones, for the next values of the same length.

Covers: remembering a few of them by length. Does not cover what else becomes of released bytes: `arena` moves values
together. What is forgotten here is only moved later. Not thread-safe.

Why: a full cache of equal values would else copy three values together for each new one (docs/decisions/0014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from membudget_runtime.arena import Segment

REMEMBERED: Final = 256
"""At once, 30 kB of heap: several times what a cache drops to make place for values of one length."""

Place = tuple["Segment", int]


class Holes:
    """Segment and offset by length, the newest first."""

    __slots__ = ("_count", "_places")

    def __init__(self) -> None:
        self._places: dict[int, list[Place]] = {}
        self._count = 0

    def has(self, length: int) -> bool:
        """Whether a value of so many bytes has a place."""
        return length in self._places

    def add(self, segment: Segment, offset: int, length: int) -> None:
        """A value was released there, and its segment holds others still."""
        if self._count == REMEMBERED:
            self.clear()
        self._count += 1
        places = self._places.get(length)
        if places is None:
            self._places[length] = [(segment, offset)]
        else:
            places.append((segment, offset))

    def take(self, length: int) -> Place | None:
        """A place for a value of so many bytes, which is no hole any more."""
        places = self._places.get(length)
        if places is None:
            return None
        self._count -= 1
        if len(places) == 1:
            del self._places[length]
        return places.pop()

    def forget(self, segment: Segment) -> None:
        """The segment goes."""
        kept = {
            length: left
            for length, places in self._places.items()
            if (left := [place for place in places if place[0] is not segment])
        }
        self._places = kept
        self._count = sum(map(len, kept.values()))

    def clear(self) -> None:
        """Forget all."""
        self._places.clear()
        self._count = 0
