"""The order that docs/eviction-order.md tells, entry by entry."""

import os
from pathlib import Path

from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.policy import Priority
from membudget_runtime.bounds import Bounds
from membudget_runtime.cache import BoundedCache
from membudget_runtime.ledger import Ledger
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.spill import SpillStore
from runtime.fakes import MB, HandClock, ledger_of, start

VALUE_BYTES = 200_000
"""Over a quarter of a segment: each lies alone, so that each eviction is one entry."""


class Watched:
    """Two caches of one ledger; what left them, in its order."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.left: list[bytes] = []
        self.ledger, _ = ledger_of(ceilings={"large": 100 * MB, "small": 100 * MB}, clock=self.clock)
        self.small = self._cache(self.ledger, "small", folder)
        self.large = self._cache(self.ledger, "large", folder)

    def _cache(self, ledger: Ledger, name: str, folder: Path) -> BoundedCache[bytes]:
        return BoundedCache(
            name,
            ledger,
            ttl_seconds=1000.0,
            clock=self.clock,
            spill=SpillStore(folder / name, 100 * MB),
            on_removed=lambda _collection, key: self.left.append(key),
        )

    def put(self, cache: BoundedCache[bytes], collection: str, key: str) -> None:
        """One value, used now."""
        self.clock.tick()
        assert cache.put(key.encode(), os.urandom(VALUE_BYTES), collection)

    def use(self, cache: BoundedCache[bytes], collection: str, key: str) -> None:
        """Used now."""
        self.clock.tick()
        assert cache.get(collection, key.encode()) is not None


def filled(folder: Path) -> Watched:
    """Eight values in `large` and two in `small`."""
    watched = Watched(folder)
    large, small = watched.large, watched.small
    watched.put(large, "critical", "critical")
    watched.put(large, "pinned", "pinned, of class Medium")
    watched.put(large, "high", "high, not used since")
    watched.put(large, "unnamed", "medium, as no policy names it")
    watched.put(large, "low", "low, used again")
    watched.put(large, "low", "low, first")
    watched.put(small, "low", "low, of the small component")
    watched.put(large, "low", "low, last")
    watched.put(small, "medium", "medium, of the small component")
    watched.put(large, "medium", "medium, used last")
    watched.use(large, "low", "low, used again")
    return watched


ORDER = [
    b"low, first",
    b"low, last",
    b"low, used again",
    b"low, of the small component",
    b"medium, as no policy names it",
    b"medium, used last",
    b"medium, of the small component",
    b"high, not used since",
]


def test_entries_leave_in_the_order_of_the_document(tmp_path: Path) -> None:
    """R-P07: class, then component by its bytes, then last use over all collections; Critical and excluded never."""
    watched = filled(tmp_path)
    while watched.ledger.evict(1, Priority.HIGH).entries:
        pass
    assert watched.left == ORDER
    assert watched.large.get("critical", b"critical") is not None
    assert watched.large.get("pinned", b"pinned, of class Medium") is not None


def test_all_at_once_is_the_same_order_up_to_the_class_that_was_said(tmp_path: Path) -> None:
    """R-P07: one request of the ladder, which asks up to Medium."""
    watched = filled(tmp_path)
    request = FreeRequest(means=Means.EVICT, target_bytes=100 * MB, up_to=Priority.MEDIUM)
    freed = Reclaimer(watched.ledger, start()).free(request)
    assert (watched.left, freed.entries, freed.candidates, freed.exhausted) == (ORDER[:7], 7, 7, True)


def test_spilling_goes_by_the_same_order(tmp_path: Path) -> None:
    """R-P07, R-S04: all of Low before the first Medium one; candidates are those of the classes that may go."""
    watched = filled(tmp_path)
    reclaimer = Reclaimer(watched.ledger, start())
    freed = reclaimer.free(FreeRequest(means=Means.SPILL, target_bytes=4 * VALUE_BYTES))
    assert (set(freed.collections), freed.candidates, watched.left) == ({"low"}, 8, [])
    assert watched.large.get("low", b"low, first") is not None


def test_an_admission_evicts_up_to_its_own_class_and_no_further(tmp_path: Path) -> None:
    """R-P07: a Low value is refused rather than a Medium one evicted for it; 512 KiB go at once."""
    watched = Watched(tmp_path)
    watched.put(watched.large, "medium", "medium, unused for longest")
    for number in range(4):
        watched.put(watched.large, "low", f"low {number}")
    bounds = watched.ledger.bounds
    ceilings = {"large": watched.large.owned_bytes()}
    watched.ledger.set_bounds(Bounds("plan", bounds.signal, None, ceilings, bounds.ranking))
    watched.put(watched.large, "medium", "medium, new")
    assert watched.left == [b"low 0", b"low 1", b"low 2"]
    for number in range(2):
        watched.put(watched.large, "medium", f"medium, new {number}")
    watched.put(watched.large, "medium", "medium, for the last low one")
    assert watched.left[3:] == [b"low 3", b"medium, unused for longest", b"medium, new"]
    for number in range(2, 4):
        watched.put(watched.large, "medium", f"medium, new {number}")
    assert not watched.large.put(b"low again", os.urandom(VALUE_BYTES), "low")
    assert len(watched.left) == 6
