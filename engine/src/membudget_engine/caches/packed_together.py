"""Values compressed together, while others may use them.

Covers: how a value is kept, what it was when it was looked at, and changing places all at once. Does not cover which
values, when, nor their counts (`counted_cache`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from membudget_runtime.packing import packed

Name = tuple[str, bytes]
"""Collection and key."""


class Packs(Enum):
    """When a room compresses its values, as long as its plan has it compress at all."""

    AT_ONCE = auto()
    UNUSED = auto()
    """By `pack_unused`, and before any goes for its bytes; used again, it is kept as it is where that fits."""
    NEVER = auto()
    """Where a value is had again sooner than it is inflated."""


class Form(Enum):
    """How a value is kept."""

    USED = auto()
    """As it is, and used since `pack_unused` was last called."""
    UNUSED = auto()
    """As it is, and not used since."""
    PLAIN = auto()
    """As it is: compression saves too little."""
    PACKED = auto()


class Kept:
    """One entry."""

    __slots__ = ("expires_at", "form", "stored")

    def __init__(self, stored: bytes, expires_at: float, form: Form) -> None:
        self.stored = stored
        self.expires_at = expires_at
        self.form = form


class Seen(NamedTuple):
    """An entry as it was under the lock."""

    name: Name
    kept: Kept
    stored: bytes
    form: Form

    @classmethod
    def now(cls, name: Name, kept: Kept) -> Seen:
        """As it is; the lock is held."""
        return cls(name, kept, kept.stored, kept.form)

    def is_still(self, held: Mapping[Name, Kept]) -> bool:
        """Whether nothing became of it since; the lock is held."""
        kept = self.kept
        return held.get(self.name) is kept and kept.form is self.form and kept.stored is self.stored


class Packing:
    """Values compressed, to take the place of what they were all at once.

    One by one, each would lie in the hole that the one before it left, and leave a smaller one that fits nothing: for
    the kernel, values of 2 kB that compress to 1.2 kB stay 2 kB (tests/engine/test_counted_bytes.py).
    """

    def __init__(self) -> None:
        self.saved_bytes = 0
        self.tried_bytes = 0
        self._incompressible: list[Seen] = []
        self._packed = bytearray()
        self._plain: list[Seen] = []
        self._ends: list[int] = []

    def add(self, seen: Seen) -> None:
        """Compress this one too, whatever became of it meanwhile."""
        smaller = packed(seen.stored)
        self.tried_bytes += len(seen.stored)
        if smaller is seen.stored:
            self._incompressible.append(seen)
            return
        self.saved_bytes += sys.getsizeof(seen.stored) - sys.getsizeof(smaller)
        self._packed += smaller
        self._plain.append(seen)
        self._ends.append(len(self._packed))

    def take_place(self, held: Mapping[Name, Kept]) -> tuple[int, int, list[Name]]:
        """Of those that are held and were not used meanwhile; of them, what does not compress stays as it is for good.

        How many, the bytes freed, and whose values found no memory and are lost. The lock is held.
        """
        for seen in self._incompressible:
            if seen.is_still(held):
                seen.kept.form = Form.PLAIN
        spans = zip([0, *self._ends], self._ends, strict=False)
        now = [
            (seen.name, seen.kept, start, end)
            for seen, (start, end) in zip(self._plain, spans, strict=True)
            if seen.is_still(held)
        ]
        self._plain.clear()
        freed = sum(sys.getsizeof(kept.stored) for _, kept, _, _ in now)
        for _, kept, _, _ in now:
            kept.stored = b""
        lost: list[Name] = []
        for name, kept, start, end in now:
            try:
                kept.stored, kept.form = bytes(self._packed[start:end]), Form.PACKED
            except MemoryError:  # a guard of the process is nearer than the bounds
                lost.append(name)
            freed -= sys.getsizeof(kept.stored)
        return len(now), freed, lost
