"""Whether a watch still brings what happens: tells one that is dead from a cluster in which nothing does.

Covers: one kind. A watch that is silent says nothing by that: kopf keeps to itself the bookmarks by which an API server
shows that a connection lives, and begins anew where none comes (`handlers`). So what a list shows is held against what
the watch has brought: a version that the list has and the watch does not bring is owed. A quiet cluster owes nothing,
an API server that is away shows no list. Does not list (`listing`) nor end anything (`__main__`).

Deletions are not owed: a watch that begins anew after a gap brings what is there, never what has gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol


class Placed(Protocol):
    """An object of either kind at one version."""

    @property
    def uid(self) -> str:
        """Its own."""
        ...

    @property
    def namespace(self) -> str:
        """A watch brings the versions of one namespace in their order."""
        ...

    @property
    def resource_version(self) -> int:
        """Grows with each change of any object."""
        ...


class _Owed(NamedTuple):
    namespace: str
    version: int
    since: float


class WatchHealth:
    """Of one kind; told by kopf's thread, held against lists by the loop's, read by the probes'."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told_at: float | None = None
        self._told: dict[str, int] = {}
        self._owed: dict[str, _Owed] = {}

    def tell(self, brought: Placed) -> None:
        """The watch brought that, or its deletion."""
        with self._lock:
            self._told_at = self._clock()
            known = self._told.get(brought.namespace, brought.resource_version)
            self._told[brought.namespace] = max(known, brought.resource_version)

    def hold_against(self, listed: Iterable[Placed], *, restored: bool) -> None:
        """What a list shows is owed until the watch brings it, and no longer than a list shows it.

        Args:
            listed: all objects of the kind.
            restored: the store was put back to an earlier day: what was told of the later one counts for nothing.
        """
        with self._lock:
            if restored:
                self._told.clear()
                self._owed.clear()
            now = self._clock()
            before = {uid: owed for uid, owed in self._owed.items() if not self._is_told(owed)}
            self._owed = {}
            for seen in listed:
                owed = before.get(seen.uid, _Owed(seen.namespace, seen.resource_version, now))
                if not self._is_told(owed):
                    self._owed[seen.uid] = owed

    @property
    def event_at(self) -> float | None:
        """When it last brought something, by the clock."""
        return self._told_at

    @property
    def behind_seconds(self) -> float:
        """How long it has owed what a list showed; 0 where it owes nothing."""
        with self._lock:
            since = [owed.since for owed in self._owed.values() if not self._is_told(owed)]
            return self._clock() - min(since) if since else 0.0

    def _is_told(self, owed: _Owed) -> bool:
        return owed.version <= self._told.get(owed.namespace, -1)
