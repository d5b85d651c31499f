import contextlib
import operator
import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise, repeat
from pathlib import Path

import pytest

from membudget_contract.policy import EVICTABLE, Priority
from membudget_runtime.arena import SEGMENT_BYTES
from membudget_runtime.cache import BoundedCache, KeptState
from membudget_runtime.component import Ranking
from membudget_runtime.entry import DROP_ENTRIES, SPILLED_BYTES, STEP_ENTRIES
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.ghosts import LEAST_MARKS
from membudget_runtime.kept_entries import DEAD_SHARE, ENTRY_BYTES
from membudget_runtime.ledger import Ledger
from membudget_runtime.packing import COMPRESS_FROM
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.replacement import AdaptiveFifo, LeastFrequentlyUsed, LeastRecentlyUsed, Replacement
from membudget_runtime.spill import SpillPlace, SpillStore
from membudget_runtime.yielding_lock import YieldingLock
from runtime.fakes import MB, RANKING, HandClock, budgets_with, ledger_of, start
from runtime.recount import wrong_in

Cache = BoundedCache[str]
NAME = "semanticCache"
VALUE = 2048
TTL = 100_000.0


def cache_of(
    ledger: Ledger,
    clock: Callable[[], float],
    *,
    spill: SpillStore | None = None,
    on_removed: Callable[[str, str], None] = lambda _collection, _key: None,
    compression: bool = False,
) -> Cache:
    """A cache in this ledger."""
    return BoundedCache(
        NAME, ledger, ttl_seconds=TTL, clock=clock, spill=spill, compression=compression, on_removed=on_removed
    )


def small(ceiling: int = MB, spill: SpillStore | None = None) -> tuple[Cache, Ledger, HandClock]:
    """A cache under one ceiling, and what moves it."""
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={NAME: ceiling}, clock=clock)
    return cache_of(ledger, clock, spill=spill), ledger, clock


def fill(cache: Cache, clock: HandClock, collection: str, count: int, size: int = VALUE) -> None:
    """Keys 0 to count, a second apart."""
    for number in range(count):
        clock.tick()
        assert cache.put(str(number), bytes([number % 256]) * size, collection)


def kept(cache: Cache, collection: str, count: int) -> list[int]:
    """Which of the first `count` keys are there."""
    return [number for number in range(count) if cache.holds(collection, str(number))]


def test_a_value_comes_back_and_is_counted() -> None:
    """R-E02: hits and misses."""
    cache, _, _ = small()
    found = (cache.get("default", "a"), cache.put("a", b"one"), cache.get("default", "a"), cache.get("high", "a"))
    assert found == (None, True, b"one", None)
    assert (cache.counters.hits, cache.counters.misses, len(cache)) == (1, 2, 1)


def test_the_least_recently_used_goes_first_over_all_collections_of_a_class() -> None:
    """R-P07: the documented order inside a class; `other` and `medium` are both Medium."""
    cache, ledger, clock = small()
    for key, collection in (("0", "medium"), ("1", "other"), ("2", "medium"), ("3", "other")):
        clock.tick()
        cache.put(key, bytes(VALUE), collection)
    clock.tick()
    cache.get("medium", "0")
    cache.evict(2 * ENTRY_BYTES, Priority.MEDIUM, ledger.bounds.ranking)
    assert (kept(cache, "medium", 4), kept(cache, "other", 4)) == ([0], [3])


def test_low_goes_before_medium_before_high() -> None:
    """R-P07, known bug 1: with the weight of the classes inverted, High would go first."""
    cache, ledger, clock = small(64 * MB)
    for collection in ("high", "medium", "low"):
        fill(cache, clock, collection, 400)
    order: list[str] = []
    while ledger.evict(100 * 1024, Priority.HIGH).entries:
        left = [len(kept(cache, collection, 400)) for collection in ("low", "medium", "high")]
        order.append("".join("-" if count == 0 else "+" if count == 400 else "~" for count in left))
    assert list(dict.fromkeys(order)) == ["~++", "-~+", "--~", "---"]


def test_critical_and_excluded_collections_are_neither_evicted_nor_spilled(tmp_path: Path) -> None:
    """R-P07, R-E14: not when everything is asked for, up to any class."""
    cache, ledger, clock = small(64 * MB, SpillStore(tmp_path, 64 * MB))
    for collection in ("critical", "pinned", "low"):
        fill(cache, clock, collection, 10)
    for priority in Priority:
        cache.spill(64 * MB, priority, ledger.bounds.ranking)
        ledger.evict(64 * MB, priority)
    assert (kept(cache, "critical", 10), kept(cache, "pinned", 10)) == ([*range(10)], [*range(10)])
    assert (kept(cache, "low", 10), cache.spilled_bytes()) == ([], 0)


def test_a_value_larger_than_the_ceiling_is_refused_and_evicts_nothing() -> None:
    """R-E02: refused, not cached."""
    cache, _, clock = small(MB)
    fill(cache, clock, "low", 10)
    assert (cache.put("big", bytes(MB)), cache.counters.refused, len(cache)) == (False, 1, 10)
    assert [use.name for use in cache.collections()] == ["low"]


def test_an_entry_past_its_time_is_a_miss_and_expiry_drops_the_rest() -> None:
    """R-E02: time to live."""
    cache, _, clock = small(64 * MB)
    fill(cache, clock, "low", 3000, 64)
    clock.now += TTL - 0.5
    assert (cache.get("low", "2998"), cache.get("low", "2999")) == (None, bytes([2999 % 256]) * 64)
    assert (cache.expire().entries, len(cache), cache.counters.expirations) == (2998, 1, 2999)


@pytest.mark.parametrize("expires", [False, True], ids=["comes", "comes, and another expiry"])
def test_what_comes_while_an_expiry_looks_is_late_at_its_time(*, expires: bool) -> None:
    """R-E02: who is late is found without the lock, and an entry may come meanwhile that ends before all others."""
    clock, during = HandClock(), list[Callable[[], object]]()

    def looked() -> float:
        if during:
            during.pop()()
        return clock.now

    ledger, _ = ledger_of(ceilings={NAME: MB}, clock=clock)
    cache: BoundedCache[bytes] = BoundedCache(NAME, ledger, ttl_seconds=TTL, clock=looked, compression=False)
    cache.put(b"early", b"value", "low")
    short = KeptEntry("low", b"short", b"value", packed=False, seconds_left=1.0)

    def other_thread() -> None:
        came.append(cache.restore(short))
        if expires:
            cache.expire()

    def restored_by_another() -> None:
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join(10.0)

    came: list[bool] = []
    during.append(restored_by_another)
    cache.expire()
    held = cache.get("low", b"short")
    clock.now += 1.0
    assert (came, held, cache.get("low", b"short"), len(cache)) == ([True], b"value", None, 1)


class CountedLock(YieldingLock):
    """Counts how often it is taken."""

    taken = 0

    def __enter__(self) -> None:
        super().__enter__()
        self.taken += 1


@pytest.mark.parametrize("used", [False, True])
def test_a_search_for_what_can_be_spilled_or_saved_lets_others_in(tmp_path: Path, *, used: bool) -> None:
    """R-E13, R-E17: 10,000 values too short for the disk are not walked under one hold of the lock."""
    clock, (ledger, _) = HandClock(), ledger_of(ceilings={NAME: 64 * MB})
    cache: BoundedCache[bytes] = BoundedCache(
        NAME, ledger, ttl_seconds=TTL, clock=clock, spill=SpillStore(tmp_path, MB), compression=False
    )
    for key in range(10_000):
        assert cache.put(b"%d" % key, bytes(SPILLED_BYTES), "low")
        if used:
            cache.get("low", b"%d" % key)
    ledger.lock = counted = CountedLock()
    removed = cache.spill(MB, Priority.LOW, RANKING)
    searched = counted.taken
    next(cache.saved(Priority.LOW))
    assert (removed.entries, searched >= 10_000 // STEP_ENTRIES) == (0, True)
    assert counted.taken - searched >= 10_000 // STEP_ENTRIES


@pytest.mark.parametrize("policy", [AdaptiveFifo, LeastRecentlyUsed, LeastFrequentlyUsed])
def test_an_expiry_does_not_look_at_all_entries_at_once(policy: type[Replacement[bytes]]) -> None:
    """R-E02: of 10,000 entries a thousand under one hold of the lock."""
    clock, (ledger, _) = HandClock(), ledger_of(ceilings={NAME: 64 * MB})
    cache: BoundedCache[bytes] = BoundedCache(NAME, ledger, ttl_seconds=TTL, clock=clock, policy=policy)
    for key in range(10_000):
        assert cache.put(b"%d" % key, b"value", "low")
    ledger.lock = counted = CountedLock()
    assert (cache.expire().entries, counted.taken >= 10_000 // STEP_ENTRIES) == (0, True)


class BusyLock(CountedLock):
    """Once after each of a few holds others look up some of the entries."""

    def __init__(self, uses: Iterable[Callable[[], object]]) -> None:
        super().__init__()
        self._uses = iter(uses)
        self._depth = 0

    def __enter__(self) -> None:
        super().__enter__()
        self._depth += 1

    def __exit__(self, *_error: object) -> None:
        super().__exit__()
        self._depth -= 1
        if not self._depth:
            self._depth = 1  # what is used now takes the lock as well
            next(self._uses, int)()
            self._depth = 0


@pytest.mark.parametrize("policy", [AdaptiveFifo, LeastRecentlyUsed, LeastFrequentlyUsed])
@pytest.mark.parametrize("every", [1, 3, 333])
def test_what_is_used_while_all_are_looked_at_is_saved_as_well(policy: type[Replacement[bytes]], every: int) -> None:
    """R-E17: a hit may move an entry between two holds of the lock; none is passed over."""
    clock, (ledger, _) = HandClock(), ledger_of(ceilings={NAME: 64 * MB})
    cache: BoundedCache[bytes] = BoundedCache(NAME, ledger, ttl_seconds=TTL, clock=clock, policy=policy)
    keys = [b"%d" % key for key in range(5 * STEP_ENTRIES)]
    for key in keys:
        assert cache.put(key, b"value", "low")
    ledger.lock = BusyLock([lambda: [cache.get("low", key) for key in keys[::every]]] * 3)
    assert {entry.key for entry in cache.saved(Priority.LOW)} == {*keys}


ENDS: dict[str, Callable[[Cache], int]] = {
    "drop": lambda cache: cache.drop("low"),
    "clear": lambda cache: cache.clear(),
    "expire": lambda cache: cache.expire().entries,
}


@pytest.mark.parametrize("way", ENDS)
def test_whatever_drops_many_entries_drops_some_under_each_hold_of_the_lock(way: str) -> None:
    """R-E02: 64 of 3000; two collections lie mixed, and of the other one's values 64 are moved together at once."""
    clock, told = HandClock(), list[str]()
    ledger, _ = ledger_of(ceilings={NAME: 64 * MB}, clock=clock)
    cache = cache_of(ledger, clock, on_removed=lambda _collection, key: told.append(key))
    for number in range(3000):
        clock.now = 0.0
        assert cache.put(str(number), bytes(VALUE), "low")
        clock.now = 1.0
        assert way == "clear" or cache.put(str(number), bytes(VALUE), "high")
    clock.now = TTL if way == "expire" else 1.0
    high = cache._kept.tables.get("high")  # pyright: ignore[reportPrivateUsage]
    values = [] if high is None else list(high.entries.values())
    seen = [(len(told), [(value.segment, value.offset) for value in values])]

    ledger.lock = BusyLock(
        repeat(lambda: seen.append((len(told), [(value.segment, value.offset) for value in values])))
    )
    dropped = ENDS[way](cache)
    most_told = max(later[0] - before[0] for before, later in pairwise(seen))
    most_moved = max(sum(map(operator.ne, before[1], later[1])) for before, later in pairwise(seen))
    assert (dropped, len(told), len(cache)) == (3000, 3000, len(values))
    assert (most_told, most_moved) == (DROP_ENTRIES, DROP_ENTRIES if values else 0)


def test_what_is_dropped_is_gone_at_once_and_what_is_put_meanwhile_stays() -> None:
    """R-E02: no look-up finds half a collection, and the owner hears of an entry before another has its key."""
    clock, told = HandClock(), list[str]()
    ledger, _ = ledger_of(ceilings={NAME: 64 * MB}, clock=clock)
    cache = cache_of(ledger, clock, on_removed=lambda _collection, key: told.append(key))
    fill(cache, clock, "low", 1000)
    met: list[object] = []
    evicted: list[int] = []

    def others() -> None:
        met.append((cache.get("low", "0"), cache.holds("low", "999"), wrong_in(cache)))
        met.append((told.count("0"), cache.put("0", b"newer", "low"), told.count("0")))
        met.append((cache.put("new", b"new", "low"), cache.drop("low"), cache.put("new", b"newest", "low")))
        evicted.append(cache.evict(MB, Priority.LOW, RANKING).entries)
        met.append((cache.put("900", b"newer", "low"), wrong_in(cache)))

    ledger.lock = BusyLock([others])
    dropped = cache.drop("low")
    assert met == [(None, False, []), (0, True, 1), (True, 2, True), (True, [])]
    assert [cache.get("low", key) for key in ("0", "1", "900", "new")] == [None, None, b"newer", b"newest"]
    assert (0 < evicted[0] < 900, dropped) == (True, 1000 - evicted[0] - len(["0", "900"]))
    assert (len(told), len(cache), wrong_in(cache)) == (1002, 2, [])


@pytest.mark.parametrize("bound", ["ceiling", "room"])
def test_values_that_lie_in_two_places_pass_no_bound(bound: str) -> None:
    """R-E02: others take all that is free between two holds of the lock while what a drop left is moved together."""
    clock = HandClock()
    most = 8 * MB
    ceiling, target = (most, None) if bound == "ceiling" else (64 * MB, most)
    ledger, memory = ledger_of(ceilings={NAME: ceiling}, target=target, clock=clock)
    cache = cache_of(ledger, clock)
    memory.components = [cache]
    number = 0
    while cache.owned_bytes() < most - 4 * VALUE:
        number += 1
        assert cache.put(str(number), bytes(VALUE), "critical" if number % 2 else "pinned")
    over: list[int] = []

    def take_all() -> None:
        over.append(ledger.managed_bytes() - most)
        if over[-1] < 0:
            ledger.set_aside(NAME, -over[-1], momentary=True)

    ledger.lock = BusyLock(repeat(take_all))
    dropped = cache.drop("pinned")
    assert (dropped > 1000, max(over) <= 0, wrong_in(cache)) == (True, True, [])


@pytest.mark.parametrize(
    ("value", "compressed"),
    [
        (b"a" * (COMPRESS_FROM + 1), True),
        (b"a" * COMPRESS_FROM, False),
        (random.Random(1).randbytes(10_000), False),
        (random.Random(1).randbytes(8500) + bytes(1500), False),
        (random.Random(1).randbytes(7500) + bytes(2500), True),
    ],
    ids=["long", "short", "noise", "saves 15 %", "saves 25 %"],
)
def test_values_are_compressed_only_where_it_pays(value: bytes, compressed: bool) -> None:
    """R-E02: over 1 kB, and only when it saves more than 20 %."""
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={})
    cache = cache_of(ledger, clock, compression=True)
    cache.put("a", value)
    stored = cache.collections()[0].owned_bytes - ENTRY_BYTES
    found = (cache.get("default", "a"), cache.counters.compressions, stored < 0.8 * len(value))
    assert found == (value, int(compressed), compressed)


def test_a_replaced_value_is_gone_and_its_bytes_with_it() -> None:
    """R-E02: the last value under a key, counted once."""
    cache, _, _ = small()
    for value in (b"first" * 1000, b"second"):
        cache.put("a", value)
    found = (cache.get("default", "a"), len(cache), cache.collections()[0].owned_bytes)
    assert found == (b"second", 1, len(b"second") + ENTRY_BYTES)


def test_one_key_replaced_for_long_evicts_nobody_else() -> None:
    """R-E02: dead bytes of replaced values are moved together before anything live goes far."""
    cache, _, clock = small(8 * MB)
    fill(cache, clock, "low", 1000)
    for _ in range(20_000):
        clock.tick()
        cache.put("hot", bytes(VALUE), "low")
    assert (len(cache), cache.owned_bytes() <= 8 * MB) == (1001, True)


def test_whoever_listens_hears_of_every_entry_once(tmp_path: Path) -> None:
    """R-E02: replaced, evicted, expired, damaged and cleared entries; a spilled one is not gone."""
    clock, heard = HandClock(), list[str]()
    ledger, _ = ledger_of(ceilings={}, clock=clock)
    store = SpillStore(tmp_path, MB)
    cache = cache_of(ledger, clock, spill=store, on_removed=lambda collection, key: heard.append(f"{collection}/{key}"))
    for key in ("replaced", "expired"):
        cache.put(key, b"1", "medium")
    cache.put("replaced", b"2", "critical")
    cache.put("expired", b"2", "medium")
    cache.put("damaged", bytes(SPILLED_BYTES + 1), "low")
    cache.spill(1, Priority.LOW, RANKING)
    for path in tmp_path.iterdir():
        path.unlink()
    spilled = list(heard)
    assert cache.get("low", "damaged") is None
    cache.put("evicted", b"1", "low")
    ledger.evict(1, Priority.LOW)
    clock.now += TTL
    cache.put("cleared", b"1", "high")
    cache.expire()
    cache.clear()
    assert (spilled, heard[1:3], len(cache)) == (["medium/expired"], ["low/damaged", "low/evicted"], 0)
    assert sorted(heard[3:]) == ["critical/replaced", "high/cleared", "medium/expired", "medium/replaced"]


def test_clear_gives_every_byte_back(tmp_path: Path) -> None:
    """R-E02: memory and disk."""
    cache, ledger, clock = small(64 * MB, SpillStore(tmp_path, 64 * MB))
    fill(cache, clock, "low", 1000)
    cache.spill(MB, Priority.LOW, ledger.bounds.ranking)
    found = (cache.clear(), cache.owned_bytes(), cache.spilled_bytes(), list(tmp_path.iterdir()))
    assert found == (1000, 0, 0, [])


def test_spilled_values_come_back_and_leave_the_disk(tmp_path: Path) -> None:
    """R-E13: loads back on access."""
    cache, ledger, clock = small(64 * MB, SpillStore(tmp_path, 64 * MB))
    fill(cache, clock, "low", 1000)
    before = cache.owned_bytes()
    cache.spill(2 * 1000 * VALUE, Priority.LOW, ledger.bounds.ranking)
    on_disk = (cache.spilled_bytes(), cache.owned_bytes())
    values = [cache.get("low", str(number)) for number in range(1000)]
    assert on_disk[0] == 1000 * VALUE
    assert 1000 * (ENTRY_BYTES + SPILLED_BYTES) < on_disk[1] < 1000 * (ENTRY_BYTES + SPILLED_BYTES + 120)
    assert values == [bytes([number % 256]) * VALUE for number in range(1000)]
    assert (cache.spilled_bytes(), cache.owned_bytes(), cache.counters.loads) == (0, before, 1000)
    assert list(tmp_path.iterdir()) == []


class OvertakenStore(SpillStore):
    """Between the look-up and the reading of a record, someone else gets it first."""

    overtake: Callable[[], object] | None = None

    def read(self, place: SpillPlace) -> bytes:
        """As the store does, once the other is done."""
        if self.overtake is not None:
            other, self.overtake = self.overtake, None
            other()
        return super().read(place)


def test_a_record_that_another_thread_brought_back_first_is_no_miss(tmp_path: Path) -> None:
    """R-E13: its file is gone because its value is in memory."""
    store = OvertakenStore(tmp_path, MB)
    cache, ledger, _ = small(MB, store)
    cache.put("a", b"value" * 100, "low")
    cache.spill(1, Priority.LOW, ledger.bounds.ranking)
    store.overtake = lambda: cache.get("low", "a")
    found = (cache.get("low", "a"), cache.counters.damaged, cache.counters.misses, cache.counters.hits)
    assert found == (b"value" * 100, 0, 0, 2)


def test_a_value_that_comes_back_while_it_is_persisted_is_persisted(tmp_path: Path) -> None:
    """R-E17: a look-up took it from the disk between the persist's look and its reading."""
    store = OvertakenStore(tmp_path, MB)
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={NAME: MB}, clock=clock)
    cache: BoundedCache[bytes] = BoundedCache(NAME, ledger, ttl_seconds=TTL, clock=clock, spill=store)
    cache.compression = False
    cache.put(b"a", b"value" * 100, "low")
    cache.spill(1, Priority.LOW, ledger.bounds.ranking)
    store.overtake = lambda: cache.get("low", b"a")
    assert [entry.stored for entry in cache.saved(Priority.LOW)] == [b"value" * 100]


def test_a_record_that_is_damaged_on_disk_is_not_persisted_and_the_others_are(tmp_path: Path) -> None:
    """R-E17: and its cache goes on to serve the rest."""
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={NAME: MB}, clock=clock)
    cache: BoundedCache[bytes] = BoundedCache(
        NAME, ledger, ttl_seconds=TTL, clock=clock, spill=SpillStore(tmp_path, MB), compression=False
    )
    cache.put(b"a", b"value" * 100, "low")
    cache.spill(1, Priority.LOW, ledger.bounds.ranking)
    cache.put(b"b", b"other" * 100, "low")
    next(tmp_path.iterdir()).write_bytes(b"nothing")
    assert [entry.key for entry in cache.saved(Priority.LOW)] == [b"b"]


def test_a_spill_that_frees_no_page_yet_keeps_the_bound(tmp_path: Path) -> None:
    """R-E02, R-E13: a place on disk costs heap, and one segment's values share pages."""
    cache, ledger, clock = small(200_000, SpillStore(tmp_path, 8 * MB))
    fill(cache, clock, "low", 1000, size=400)
    fill(cache, clock, "high", 20, size=400)
    before = cache.owned_bytes()
    cache.spill(1, Priority.LOW, ledger.bounds.ranking)
    spilled = cache.owned_bytes()
    for number in range(100):
        cache.put(f"after {number}", bytes(10), "high")
        assert cache.owned_bytes() <= 200_000
    assert (190_000 < before <= 200_000, spilled <= 200_000, cache.counters.spills > 100) == (True, True, True)


def test_a_key_whose_utf_8_somebody_asked_for_meanwhile_costs_what_it_cost() -> None:
    """R-E02: the string keeps it, and is larger when it goes than it was when it came."""
    cache, _, _ = small()
    keys = [f"Schlüssel für einen Wert {number}" for number in range(100)]
    for key in keys:
        cache.put(key, b"value", "low")
    before = cache.owned_bytes()
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        grown = [sys.getsizeof(key) for key in keys]
        database.execute(f"SELECT {', '.join('?' * len(keys))}", keys)
        assert [sys.getsizeof(key) > size for key, size in zip(keys, grown, strict=True)] == [True] * len(keys)
    for key in keys[:50]:
        cache.put(key, b"value", "low")
    assert cache.owned_bytes() == before
    assert (cache.clear(), cache.owned_bytes()) == (100, 0)


class LastStraw:
    """A key that the table asks for its hash just as the heap has no more: the second time, after the look-up."""

    def __init__(self) -> None:
        self.asked = 0

    def __hash__(self) -> int:
        """None, the second time."""
        self.asked += 1
        if self.asked == 2:
            raise MemoryError
        return 1


def test_a_table_that_may_not_grow_refuses_the_value_and_keeps_none_of_it() -> None:
    """R-E20: the value lay in its place already."""
    ledger, _ = ledger_of(ceilings={NAME: MB})
    cache: BoundedCache[object] = BoundedCache(NAME, ledger, ttl_seconds=TTL, clock=HandClock(), compression=False)
    cache.put("a", b"value", "low")
    before = cache.owned_bytes()
    taken = cache.put(LastStraw(), b"other", "low")
    assert (taken, len(cache), cache.counters.refused, cache.owned_bytes()) == (False, 1, 1, before)
    assert wrong_in(cache) == []


def test_a_new_ranking_counts_the_orders_it_needs() -> None:
    """R-E02: the marks of a class that had no entry before."""
    cache, ledger, clock = small()
    fill(cache, clock, "low", 10)
    fill(cache, clock, "other", 10)
    cache.evict(0, Priority.LOW, RANKING)
    before = cache.owned_bytes()
    ledger.set_bounds(replace(ledger.bounds, ranking=Ranking({"low": Priority.LOW, "other": Priority.HIGH})))
    classes = [Priority.LOW, Priority.HIGH, Priority.MEDIUM]
    assert [cache.gives(each) for each in classes] == [True, True, False]
    assert cache.owned_bytes() - before == 8 * LEAST_MARKS


def test_a_damaged_record_is_a_miss_and_is_counted(tmp_path: Path) -> None:
    """R-E13: never wrong data."""
    cache, ledger, _ = small(MB, SpillStore(tmp_path, MB))
    cache.put("a", b"value" * 100, "low")
    cache.spill(1, Priority.LOW, ledger.bounds.ranking)
    next(tmp_path.iterdir()).write_bytes(b"MBSPILL1" + b"valuE" * 100)
    assert (cache.get("low", "a"), cache.get("low", "a"), cache.counters.damaged, len(cache)) == (None, None, 1, 0)


def test_a_value_shorter_than_its_place_on_disk_costs_stays_in_memory(tmp_path: Path) -> None:
    """R-E13: spilling it would take memory instead of giving it back."""
    cache, ledger, _ = small(MB, SpillStore(tmp_path, MB))
    cache.put("short", bytes(SPILLED_BYTES), "low")
    cache.put("long", bytes(SPILLED_BYTES + 1), "low")
    removed = cache.spill(MB, Priority.LOW, ledger.bounds.ranking)
    assert (removed.entries, cache.spilled_bytes(), cache.spill(MB, Priority.LOW, RANKING).entries) == (1, 161, 0)


def test_a_spilled_value_stays_on_disk_where_there_is_no_room_for_it(tmp_path: Path) -> None:
    """R-E13: served from there; nothing of a higher class is evicted for it."""
    cache, ledger, clock = small(200 * 1024, SpillStore(tmp_path, MB))
    cache.put("0", b"v" * 50_000, "low")
    cache.spill(1, Priority.LOW, ledger.bounds.ranking)
    for number in range(3):
        clock.tick()
        cache.put(str(number), bytes(62_000), "high")
    assert (cache.get("low", "0"), cache.spilled_bytes(), kept(cache, "high", 3)) == (b"v" * 50_000, 50_000, [0, 1, 2])


def test_a_smaller_ceiling_keeps_the_most_recently_used() -> None:
    """R-E02: resized live, without a flush."""
    cache, ledger, clock = small(64 * MB)
    fill(cache, clock, "low", 4000)
    Reclaimer(ledger, start()).apply(budgets_with({NAME: 5 * MB}))
    left = kept(cache, "low", 4000)
    assert (left, 3 * MB < cache.owned_bytes() <= 5 * MB) == ([*range(4000 - len(left), 4000)], True)


def test_random_use_leaves_little_dead_and_nobody_is_refused() -> None:
    """R-E02: entries scattered over all segments go; pages come back through moves, not through more evictions."""
    cache, _, clock = small(16 * MB)
    chance = random.Random(1)
    for number in range(20_000):
        clock.tick()
        cache.put(str(number), bytes(VALUE), "low")
        cache.get("low", str(chance.randrange(max(0, number - 5000), number + 1)))
        assert cache.owned_bytes() <= 16 * MB
    live = cache.collections()[0].owned_bytes
    assert (cache.counters.refused, live > (1 - DEAD_SHARE - 0.1) * 16 * MB) == (0, True)


def test_a_full_cache_of_equal_values_puts_the_next_one_where_the_least_valuable_lay() -> None:
    """R-E02: no more goes than must, nothing is moved, and the bytes stay."""
    cache, _, clock = small(8 * MB)
    for number in range(20_000):
        clock.tick()
        assert cache.put(f"{number:06}", bytes([number % 251]) * VALUE)
    full, gone, held = cache.owned_bytes(), cache.counters.evictions, len(cache)
    for number in range(20_000, 40_000):
        clock.tick()
        assert cache.put(f"{number:06}", bytes([number % 251]) * VALUE)
        assert cache.owned_bytes() <= 8 * MB
    assert (cache.counters.evictions - gone, cache.counters.refused) == (20_000 + held - len(cache), 0)
    # Once the table grew, for which a batch went: before the count or after it, as the bytes of an entry have it.
    assert abs(len(cache) - held) <= 2 * SEGMENT_BYTES // VALUE
    assert full - 2 * SEGMENT_BYTES <= cache.owned_bytes()
    right = [n for n in range(40_000) if cache.get("default", f"{n:06}") == bytes([n % 251]) * VALUE]
    assert right == list(range(40_000 - len(cache), 40_000))


def test_values_of_other_lengths_find_room_beside_the_places_of_equal_ones() -> None:
    """R-E02: places that do not fit are moved together; no byte is over, nobody is refused."""
    cache, _, clock = small(8 * MB)
    chance = random.Random(2)
    lengths = [2048] * 6 + [0, 17, 300, 2047, 9000, 60_000, 140_000]
    for number in range(20_000):
        clock.tick()
        key, length = f"{chance.randrange(12_000):06}", chance.choice(lengths)
        assert cache.put(key, bytes([number % 251]) * length)
        assert cache.get("default", key) == bytes([number % 251]) * length
        assert cache.owned_bytes() <= 8 * MB


def test_what_others_hold_of_a_lower_class_goes_before_a_caches_own() -> None:
    """R-E14: over the room of all, a full cache gives up its own only where it is its turn."""
    ledger, memory = ledger_of(ceilings={"first": 8 * MB, "second": 8 * MB}, target=8 * MB)
    first, second = (
        Cache(name, ledger, ttl_seconds=TTL, clock=HandClock(), compression=False) for name in ("first", "second")
    )
    memory.components = [first, second]
    for number in range(3000):
        assert second.put(f"{number:06}", bytes(VALUE), "low")
    for number in range(2000):
        assert first.put(f"{number:06}", bytes(VALUE), "medium")
    assert (first.counters.evictions, len(first), len(second) < 2000) == (0, 2000, True)
    for number in range(2000, 8000):
        assert first.put(f"{number:06}", bytes(VALUE), "medium")
    assert (len(second), first.counters.evictions > 0, ledger.managed_bytes() <= 8 * MB) == (0, True, True)


def test_eight_threads_break_neither_the_bound_nor_the_values(tmp_path: Path) -> None:
    """R-E02, R-E13: get, put, spill, expire, evict and resize at once."""
    ledger, _ = ledger_of(ceilings={NAME: 4 * MB})
    cache = cache_of(ledger, HandClock(), spill=SpillStore(tmp_path, 8 * MB))
    wrong: list[str] = []

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(1500):
                key, collection = str(chance.randrange(800)), chance.choice(["low", "medium", "high"])
                value = cache.get(collection, key)
                wrong.extend([key] if value not in {None, key.encode() * 1500} else [])
                cache.put(key, key.encode() * 1500, collection)
                with ledger.lock:
                    over = cache.owned_bytes() - 4 * MB
                wrong.extend([f"{over} over the bound"] if over > 0 else [])
                if chance.random() < 0.02:
                    cache.spill(100_000, chance.choice(EVICTABLE), RANKING)
                    ledger.evict(100_000, Priority.HIGH)
        except Exception as error:  # noqa: BLE001  any is what the test looks for
            wrong.append(repr(error))

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, cache.counters.damaged, cache.counters.spills > 0) == ([], 0, True)


def test_a_name_made_anew_for_each_request_costs_no_string_per_entry() -> None:
    """R-E02: entries share the name of their collection."""
    heard: list[str] = []
    ledger, _ = ledger_of(ceilings={})
    cache = cache_of(ledger, HandClock(), on_removed=lambda collection, _key: heard.append(collection))
    for key in "ab":
        cache.put(key, b"1", os.fsdecode(b"tenant"))
    cache.clear()
    assert heard[0] is heard[1]


def test_an_exclusion_may_name_what_no_policy_ranks() -> None:
    """R-P07: excluded by name, whatever the class."""
    ranking = Ranking({}, frozenset({"unknown"}))
    assert [ranking.may_evict("unknown", priority) for priority in Priority] == [False] * 4


def test_whether_a_value_is_kept_and_on_disk_is_told_and_counts_as_no_use(tmp_path: Path) -> None:
    """R-E13: of one in memory, of one that is not there, and of one that was read."""
    cache, ledger, _ = small(MB, SpillStore(tmp_path, MB))
    cache.put("a", b"value" * 100, "low")
    assert cache.state("low", "a") == KeptState(kept=True, on_disk=False)
    cache.spill(1, Priority.LOW, ledger.bounds.ranking)

    names = (("low", "a"), ("low", "b"), ("high", "a"))
    assert [cache.state(*name) for name in names] == [(True, True), (False, False), (False, False)]
    assert [cache.peek(*name) for name in names] == [None] * 3
    assert (cache.counters.hits, cache.counters.misses) == (0, 0)
    assert cache.get("low", "a") == b"value" * 100
    assert cache.state("low", "a") == (True, False)
    assert (cache.peek("low", "a"), cache.counters.hits) == (b"value" * 100, 1)
