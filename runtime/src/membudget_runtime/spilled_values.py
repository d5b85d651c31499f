"""Values on disk by key: for a service that moves what it holds itself out of memory.

Covers: writing several values by one sequential write, reading one back, replacing, forgetting. Does not cover which
values go (their owner knows) nor caches, which spill by themselves (`cache`). Neighbour: `spill`, whose bound,
checksums and errors hold here too. Nothing survives the process.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from membudget_runtime.errors import SpillDamaged
from membudget_runtime.spill import SpillPlace, SpillStore

Key = TypeVar("Key", bound=Hashable)


class SpilledValues(Generic[Key]):
    """Values under keys of one owner. Thread-safe."""

    def __init__(self, store: SpillStore) -> None:
        self._store = store
        self._places: dict[Key, SpillPlace] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def spill(self, values: Mapping[Key, bytes]) -> None:
        """Write these, all or none; older values under the same keys go.

        Raises:
            SpillFailed: the bound is reached, or the file system refused; keep the values in memory.
        """
        places = self._store.write(list(values.values()))
        with self._lock:
            replaced = [self._places.pop(key) for key in values if key in self._places]
            self._places.update(zip(values, places, strict=True))
        for place in replaced:
            self._store.release(place)

    def load(self, key: Key) -> bytes | None:
        """The value, which stays on disk until `forget`; None when there is none.

        Raises:
            SpillDamaged: it did not come back as it was written; it is forgotten.
            SpillUnread: it cannot be read now; try again later.
        """
        while (place := self._places.get(key)) is not None:
            try:
                return self._store.read(place)
            except SpillDamaged:
                with self._lock:
                    lies_there = self._places.get(key) is place
                    if lies_there:
                        del self._places[key]
                if lies_there:
                    self._store.release(place)
                    raise
                # Replaced or forgotten while it was read: look again.
        return None

    def forget(self, key: Key) -> bool:
        """Drop the value; whether there was one."""
        with self._lock:
            place = self._places.pop(key, None)
        if place is None:
            return False
        self._store.release(place)
        return True
