import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from membudget_contract.policy import EVICTABLE, Priority
from membudget_runtime.arena import SEGMENT_BYTES, SPARSE, page_bytes
from membudget_runtime.cache import BoundedCache
from membudget_runtime.kept_entries import ENTRY_BYTES, NEW_TABLE_BYTES
from membudget_runtime.own_memory import PAGE_BYTES
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.spill import SpillStore
from membudget_runtime.table import SLOT_BYTES
from runtime.fakes import MB, RANKING, HandClock, budgets_with, ledger_of, start

NAME = "semanticCache"
collections = st.sampled_from(["low", "medium", "high", "critical", "pinned"])
keys = st.integers(0, 30)


class CacheAgainstDict(RuleBasedStateMachine):
    """R-E02, R-E13: whatever is done, a hit is the last value put, and the bound holds to the byte."""

    @initialize()
    def _empty(self) -> None:
        self.clock = HandClock()
        self.ledger, _ = ledger_of(ceilings={NAME: 6 * MB}, clock=self.clock)
        self.folder = tempfile.TemporaryDirectory()
        store = SpillStore(Path(self.folder.name), MB)
        self.cache: BoundedCache[int] = BoundedCache(
            NAME, self.ledger, ttl_seconds=100.0, clock=self.clock, spill=store, on_removed=self._forget
        )
        self.model: dict[tuple[str, int], bytes] = {}

    def teardown(self) -> None:
        """The folder goes with the run."""
        self.folder.cleanup()

    def _forget(self, collection: str, key: int) -> None:
        del self.model[collection, key]

    @rule(collection=collections, first=keys, count=st.integers(1, 20), size=st.sampled_from([10, 2048, 40_000, MB]))
    def put(self, collection: str, first: int, count: int, size: int) -> None:
        """New values and replaced ones."""
        for key in range(first, first + count):
            self.clock.tick()
            value = (str(self.clock.now) * size).encode()[:size]
            if self.cache.put(key, value, collection):
                self.model[collection, key] = value
                assert self.cache.owned_bytes() <= (self.ledger.ceiling(NAME) or 0)

    @rule(collection=collections, key=keys)
    def get(self, collection: str, key: int) -> None:
        """From memory, from disk, or a miss."""
        self.clock.tick()
        expected = self.model.get((collection, key))
        found = self.cache.get(collection, key)
        assert found == (expected if (collection, key) in self.model else None)

    @rule(priority=st.sampled_from(EVICTABLE), wanted=st.integers(1, MB))
    def spill(self, priority: Priority, wanted: int) -> None:
        """A class at a time."""
        self.cache.spill(wanted, priority, RANKING)

    @rule(wanted=st.integers(1, MB))
    def evict(self, wanted: int) -> None:
        """As the ladder would."""
        self.ledger.evict(wanted, Priority.HIGH)

    @rule(seconds=st.integers(1, 60))
    def expire(self, seconds: int) -> None:
        """Time passes."""
        self.clock.now += seconds
        self.cache.expire()

    @rule(ceiling=st.integers(MB // 2, 6 * MB))
    def resize(self, ceiling: int) -> None:
        """As a policy would; only Critical and excluded values may keep it above, with what is dead between them."""
        Reclaimer(self.ledger, start()).apply(budgets_with({NAME: ceiling}))
        stay = [use for use in self.cache.collections() if use.name in {"critical", "pinned"}]
        rounding = sum(use.entries for use in stay) * PAGE_BYTES
        least = sum(use.owned_bytes for use in stay) / SPARSE + SEGMENT_BYTES + rounding
        assert self.cache.owned_bytes() <= max(ceiling, least if stay else 0)

    @rule()
    def clear(self) -> None:
        """Everything goes."""
        self.cache.clear()
        assert (self.model, self.cache.owned_bytes()) == ({}, 0)

    @invariant()
    def entries_agree(self) -> None:
        """Every entry left is known, and told by collection."""
        told = {use.name: use.entries for use in self.cache.collections()}
        expected: dict[str, int] = {}
        for collection, _ in self.model:
            expected[collection] = expected.get(collection, 0) + 1
        assert (len(self.cache), told) == (len(self.model), expected)


CacheAgainstDict.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestCacheAgainstDict = CacheAgainstDict.TestCase


@given(ceiling=st.integers(10_000, 100_000), size=st.integers(1, 5000))
def test_values_that_cannot_go_fill_a_cache_to_its_ceiling_and_not_a_byte_over(ceiling: int, size: int) -> None:
    """R-E02: pages count whole, as the kernel charges them; so does the dict that grows with the next entry."""
    ledger, _ = ledger_of(ceilings={NAME: ceiling})
    cache: BoundedCache[int] = BoundedCache(NAME, ledger, ttl_seconds=1.0, clock=HandClock(), compression=False)
    while cache.put(len(cache), bytes(size), "critical"):
        assert cache.owned_bytes() <= ceiling
    growth = max(NEW_TABLE_BYTES, 6 * SLOT_BYTES * len(cache))
    assert cache.owned_bytes() + page_bytes(size) + ENTRY_BYTES + growth > ceiling
