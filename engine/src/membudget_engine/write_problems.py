"""What stands in the way of writes to a collection, for whoever asks before a write is refused.

Covers: one reason for each concern of each collection, as of the last try. Does not cover trying again
(`due_publishing`) nor showing it (`search_api`). Some assignments to one dictionary: any thread may call.
"""

from __future__ import annotations

import enum

import msgspec


class Concern(enum.StrEnum):
    """What does not come about."""

    WRITING = "writing"
    """The collection could not be taken over: writes are refused, it is served as it was sealed."""
    SEALING = "sealing"
    """What was written is in the log and found, and in no generation: when its bound is full, writes are refused."""
    MERGING = "merging"
    """Segments stay as they are: when there are as many as there may be, nothing is sealed."""


class Problem(msgspec.Struct, frozen=True):
    """A reason that stands."""

    concerns: Concern
    reason: str


class WriteProblems:
    """Of all collections of an engine; none in one that only reads."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, Concern], str] = {}

    def tell(self, name: str, concern: Concern, reason: str) -> bool:
        """From now on this stands; whether it did not before."""
        before = self._reasons.get((name, concern))
        self._reasons[name, concern] = reason
        return before != reason

    def end(self, name: str, concern: Concern) -> None:
        """It came about, or there is nothing to do."""
        self._reasons.pop((name, concern), None)

    def reason(self, name: str, concern: Concern) -> str | None:
        """Why not; None where nothing stands in the way."""
        return self._reasons.get((name, concern))

    def of(self, name: str) -> tuple[Problem, ...]:
        """All that stand of this collection, what hinders most first."""
        told = ((concern, self.reason(name, concern)) for concern in Concern)
        return tuple(Problem(concern, reason) for concern, reason in told if reason is not None)
