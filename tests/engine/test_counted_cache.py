"""A room bounded by number and by bytes: who gives way, who stays, and what is left when all have gone."""

import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membudget_contract.control_api import Budgets, FreeRequest, Means
from membudget_contract.plan import CollectionPlan
from membudget_contract.policy import Priority
from membudget_engine.caches import packed_together
from membudget_engine.caches.counted_cache import ENTRY_BYTES, CountedCache, Counts
from membudget_engine.caches.packed_together import Packs
from membudget_runtime.bounds import start_budgets
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.packing import packed

MINUTE = 60.0
EVERYTHING = FreeRequest(means=Means.EVICT, target_bytes=1 << 40)
Make = Callable[..., CountedCache]


class HandClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock() -> HandClock:
    """At no particular time."""
    return HandClock()


@pytest.fixture
def make(runtime: MemoryRuntime, clock: HandClock) -> Make:
    """A room of a minute; further arguments as for `CountedCache`."""

    def made(counts: Counts, *, max_bytes: int = 1 << 30, **options: object) -> CountedCache:
        return CountedCache(
            "room",
            runtime,
            counts=counts,
            max_bytes=max_bytes,
            ttl_seconds=MINUTE,
            clock=clock,
            **options,  # type: ignore[arg-type]
        )

    return made


def ranked(runtime: MemoryRuntime, classes: dict[str, Priority], **fields: object) -> Budgets:
    """The budgets in force, with these classes."""
    plans = tuple(CollectionPlan(name=name, priority=priority) for name, priority in classes.items())
    budgets = msgspec.structs.replace(start_budgets({"MEMBUDGET_TOTAL": "4Gi"}), collections=plans, **fields)
    runtime.apply(budgets)
    return budgets


def held(cache: CountedCache, keys: range, collection: str = "c") -> list[int]:
    """Which of these keys are kept, asked oldest first, so that the order stays."""
    return [number for number in keys if cache.get(collection, b"%d" % number) is not None]


def test_what_is_put_is_found_and_one_more_than_the_number_drops_the_oldest_use(make: Make) -> None:
    """R-E06, R-E07: a bound by number, least recently used first."""
    cache = make(Counts(3))
    for number in range(3):
        assert cache.put("c", b"%d" % number, b"value %d" % number)
    assert cache.get("c", b"0") == b"value 0"

    cache.put("c", b"3", b"value 3")

    assert held(cache, range(4)) == [0, 2, 3]
    assert (len(cache), cache.counters.evictions, cache.entries_of("c")) == (3, 1, 3)


def test_each_collection_has_a_number_of_its_own(make: Make) -> None:
    """R-E22: per engine and per collection, and a collection that is named has another."""
    cache = make(Counts(10, 2, {"large": 5}))
    for collection in ("small", "large", "other"):
        for number in range(6):
            cache.put(collection, b"%d" % number, b"v")

    assert {name: cache.entries_of(name) for name in ("small", "large", "other")} == {
        "small": 2,
        "large": 5,
        "other": 2,
    }
    assert held(cache, range(6), "large") == [1, 2, 3, 4, 5]


def test_the_number_of_the_whole_holds_over_all_collections(make: Make) -> None:
    """R-E22: what is oldest anywhere gives way."""
    cache = make(Counts(4, 3))
    for number in range(3):
        cache.put("a", b"%d" % number, b"v")
        cache.put("b", b"%d" % number, b"v")

    assert (len(cache), held(cache, range(3), "a"), held(cache, range(3), "b")) == (4, [1, 2], [1, 2])


def test_bytes_hold_as_well_as_the_number(make: Make) -> None:
    """R-E06: by entries and by bytes, and a value over the bound is refused with nothing evicted for it."""
    cache = make(Counts(100), max_bytes=64 * 1024)
    for number in range(20):
        assert cache.put("c", b"%d" % number, random.Random(number).randbytes(10_000))

    assert 1 < len(cache) < 7
    assert cache.owned_bytes() <= 64 * 1024
    before = len(cache)
    assert not cache.put("c", b"huge", random.Random(1).randbytes(70_000))
    assert (len(cache), cache.counters.refused) == (before, 1)


def test_a_ceiling_of_the_plan_holds_in_place_of_the_rooms_own(make: Make, runtime: MemoryRuntime) -> None:
    """R-P05: resized live, wider and tighter, without a flush."""
    cache = make(Counts(100), max_bytes=64 * 1024)
    budgets = ranked(runtime, {})
    ceilings = {**budgets.components, "room": 512 * 1024}
    runtime.apply(msgspec.structs.replace(budgets, components=ceilings))
    for number in range(20):
        cache.put("c", b"%d" % number, random.Random(number).randbytes(10_000))
    assert len(cache) == 20

    runtime.apply(msgspec.structs.replace(budgets, components=ceilings | {"room": 100 * 1024}))

    assert 5 < len(cache) < 10
    assert cache.owned_bytes() <= 100 * 1024
    assert cache.get("c", b"19") is not None


def test_the_lowest_class_gives_way_first_and_critical_never(make: Make, runtime: MemoryRuntime) -> None:
    """R-P07: by number, by bytes, and when the ladder asks."""
    cache = make(Counts(3))
    ranked(runtime, {"pinned": Priority.CRITICAL, "high": Priority.HIGH, "low": Priority.LOW})
    for collection in ("low", "pinned", "high"):
        cache.put(collection, b"0", b"v")
    cache.get("low", b"0")

    assert cache.put("c", b"0", b"v")
    assert cache.entries_of("low") == 0
    assert cache.put("high", b"1", b"v")
    assert cache.entries_of("c") == 0
    assert not cache.put("c", b"0", b"v")

    runtime.free(EVERYTHING)
    assert [use.name for use in cache.collections()] == ["pinned"]


def test_a_full_room_of_critical_entries_refuses_the_next(make: Make, runtime: MemoryRuntime) -> None:
    """R-P07: Critical is never evicted, not even for its like."""
    cache = make(Counts(2))
    ranked(runtime, {"pinned": Priority.CRITICAL})

    kept = [cache.put("pinned", b"%d" % number, b"v") for number in range(3)]

    assert (kept, held(cache, range(3), "pinned")) == ([True, True, False], [0, 1])


def test_an_entry_is_gone_after_its_time_and_a_use_may_renew_it(make: Make, clock: HandClock) -> None:
    """R-E06, R-E07: three minutes are three minutes; an idle time begins again with each use."""
    cache = make(Counts(9))
    cache.put("c", b"1", b"v")
    clock.now += MINUTE - 1
    assert cache.get("c", b"1") == b"v"
    clock.now += 1
    assert cache.get("c", b"1") is None
    assert (len(cache), cache.counters.expirations) == (0, 1)


def test_a_room_where_use_renews_counts_idle_time(make: Make, clock: HandClock) -> None:
    """R-E07: 30 minutes without use, not since the start."""
    cache = make(Counts(9), use_renews=True)
    cache.put("c", b"1", b"v")
    cache.put("c", b"2", b"v")
    for _ in range(3):
        clock.now += MINUTE - 1
        assert cache.get("c", b"1") == b"v"

    removed = cache.expire()

    assert (removed.entries, held(cache, range(3))) == (1, [1])


def test_numbers_of_a_plan_hold_at_once(make: Make, runtime: MemoryRuntime) -> None:
    """R-E22, R-P05: live, oldest first, each collection down to its own and then the whole."""

    def counts_of(budgets: Budgets) -> Counts:
        return Counts(budgets.max_loaded_files, 100, {plan.name: plan.max_loaded_files for plan in budgets.collections})

    cache = make(Counts(1), counts_of=counts_of)
    for number in range(50):
        cache.put("a", b"%d" % number, b"v")
        cache.put("b", b"%d" % number, b"v")
    assert len(cache) == 100
    few = CollectionPlan(name="a", priority=Priority.MEDIUM, max_loaded_files=4)

    ample = start_budgets({"MEMBUDGET_TOTAL": "64Gi"})  # of these tests' process, however large it has become
    runtime.apply(msgspec.structs.replace(ample, collections=(few,), max_loaded_files=20))

    assert (cache.entries_of("a"), cache.entries_of("b"), held(cache, range(50), "b")) == (4, 16, [*range(34, 50)])


def test_entries_of_a_former_life_come_back_with_the_time_they_have_left(make: Make, clock: HandClock) -> None:
    """R-E17: last used first, packed as they were; late ones and those replaced meanwhile stay away."""
    cache = make(Counts(9))
    for number in range(3):
        cache.put("c", b"%d" % number, b"value %d " % number * 1000)
        clock.now += 1
    saved = [*cache.saved(Priority.MEDIUM)]
    assert [entry.key for entry in saved] == [b"2", b"1", b"0"]
    assert all(entry.packed for entry in saved)
    cache.drop("c")

    late = KeptEntry("c", b"late", b"v", packed=False, seconds_left=0.0)
    assert [cache.restore(entry) for entry in (*reversed(saved), late, saved[0])] == [True] * 3 + [False] * 2

    assert cache.get("c", b"1") == b"value 1 " * 1000
    clock.now += MINUTE - 2
    assert held(cache, range(3)) == [2]


def test_removed_entries_leave_nothing_behind(make: Make) -> None:
    """R-E02: every byte, and the number of the collection."""
    cache = make(Counts(500))
    for number in range(500):
        cache.put("c", b"%d" % number, random.Random(number).randbytes(3000))

    assert [cache.remove("c", b"%d" % number) for number in range(400)] == [True] * 400
    assert not cache.remove("c", b"0")
    assert (cache.drop("c"), len(cache), cache.owned_bytes(), cache.collections()) == (100, 0, 0, [])


def test_memory_that_is_short_evicts_here_as_everywhere(tmp_path: Path) -> None:
    """R-E10: the ledger finds these bytes."""
    with closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        cache = CountedCache("room", runtime, counts=Counts(500), max_bytes=1 << 30, ttl_seconds=MINUTE)
        for number in range(500):
            cache.put("c", b"%d" % number, random.Random(number).randbytes(8000))
        owned = cache.owned_bytes()

        freed = runtime.free(FreeRequest(means=Means.EVICT, target_bytes=owned // 2))

        assert owned - cache.owned_bytes() == pytest.approx(owned // 2, rel=0.2)
        assert (freed.entries, cache.evictions()) == (500 - len(cache), 500 - len(cache))
        assert cache.get("c", b"499") == random.Random(499).randbytes(8000)


def text(number: int, byte_count: int = 4000) -> bytes:
    """Compresses by nearly half."""
    return random.Random(number).randbytes(byte_count // 2).hex().encode()


def test_a_value_stays_as_it_is_while_it_is_used_and_is_packed_when_nobody_does(make: Make) -> None:
    """R-E02, R-E07: compressed once for many uses, and inflated once when it is used again."""
    cache = make(Counts(9), packs=Packs.UNUSED)
    cache.put("c", b"used", text(1))
    cache.put("c", b"unused", text(2))
    (plain,) = cache.collections()
    for _ in range(3):
        assert cache.get("c", b"used") == text(1)
        cache.pack_unused()
    (smaller,) = cache.collections()
    assert (smaller.owned_bytes < 0.85 * plain.owned_bytes, cache.counters.compressions) == (True, 1)

    assert [cache.get("c", b"unused") for _ in range(2)] == [text(2)] * 2
    assert (cache.collections(), cache.counters.compressions) == ([plain], 1)


def test_a_policy_without_compression_packs_nothing_however_short_memory_is(make: Make, runtime: MemoryRuntime) -> None:
    """R-E02, R-P05: not when nobody uses it, nor in place of being dropped."""
    cache = make(Counts(9), packs=Packs.UNUSED)
    ranked(runtime, {}, cache_compression=False)
    for number in range(9):
        cache.put("c", b"%d" % number, text(number))
    for _ in range(3):
        cache.pack_unused()

    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=cache.owned_bytes() // 2))

    assert (0 < len(cache) < 9, cache.counters.compressions) == (True, 0)


def test_values_are_packed_before_any_is_dropped_for_its_bytes(make: Make) -> None:
    """R-E07: the longest unused first, as far as it takes; then the longest unused goes."""
    cache = make(Counts(500), max_bytes=100_000, packs=Packs.UNUSED)
    for number in range(30):
        assert cache.put("c", b"%d" % number, text(number))
    assert (cache.evictions(), 0 < cache.counters.compressions < 30, cache.owned_bytes() <= 100_000) == (0, True, True)

    for number in range(30, 60):
        assert cache.put("c", b"%d" % number, text(number))
    kept = [*range(60 - len(cache), 60)]
    assert (cache.evictions(), cache.owned_bytes() <= 100_000) == (60 - len(cache), True)
    assert [cache.get("c", b"%d" % number) for number in kept] == [text(number) for number in kept]


def test_reading_a_packed_value_in_a_full_room_costs_nobody_else_anything(make: Make) -> None:
    """R-E07: it stays packed where there is no room for it as it was."""
    cache = make(Counts(500), max_bytes=100_000, packs=Packs.UNUSED)
    while not cache.evictions():
        cache.put("c", b"%d" % len(cache), text(len(cache)))
    count, packed_values = len(cache), cache.counters.compressions

    assert [cache.get("c", b"%d" % number) for number in range(1, count)] == [text(n) for n in range(1, count)]
    assert (len(cache), cache.evictions(), cache.counters.compressions) == (count, 1, packed_values)
    assert sum(use.owned_bytes for use in cache.collections()) <= 100_000


def test_what_compression_saves_too_little_of_is_tried_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-E02: and stays as it is, also under pressure."""
    tried: Counter[bytes] = Counter()

    def counting(value: bytes) -> bytes:
        tried[value] += 1
        return packed(value)

    monkeypatch.setattr(packed_together, "packed", counting)
    cache = make(Counts(500), max_bytes=100_000, packs=Packs.UNUSED)
    value = random.Random(1).randbytes(4000)
    cache.put("c", b"1", value)
    for _ in range(3):
        cache.pack_unused()
    for number in range(2, 60):
        assert cache.put("c", b"%d" % number, random.Random(number).randbytes(4000))

    assert (cache.counters.compressions, len(cache) > 20, {*tried.values()}) == (0, True, {1})
    assert cache.get("c", b"59") == random.Random(59).randbytes(4000)


def test_a_value_that_is_replaced_while_the_old_one_is_compressed_is_the_new_one(make: Make) -> None:
    """R-E07: the lock is free meanwhile, so that nobody waits for it."""
    cache = make(Counts(9), packs=Packs.UNUSED)
    cache.put("c", b"1", text(1, 4 << 20))
    cache.pack_unused()
    compressing = threading.Thread(target=cache.pack_unused)
    compressing.start()

    assert cache.replace("c", b"1", text(2))

    compressing.join()
    assert (cache.get("c", b"1"), cache.counters.compressions) == (text(2), 0)


def test_what_an_eviction_compresses_beside_the_clearing_out_is_the_value_still(
    make: Make, runtime: MemoryRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-E07: the clearing out compresses without the lock what an eviction may compress meanwhile."""
    cache, evicted = make(Counts(9), packs=Packs.UNUSED), threading.Event()

    def evicting(value: bytes) -> bytes:
        if not evicted.is_set():
            evicted.set()
            with runtime.ledger.lock:
                assert cache.evict(20_000, Priority.MEDIUM, runtime.ledger.bounds.ranking).entries == 0
        return packed(value)

    for number in range(3):
        cache.put("c", b"%d" % number, text(number, 20_000))
    cache.pack_unused()
    monkeypatch.setattr(packed_together, "packed", evicting)
    cache.pack_unused()

    assert [text(number, 20_000) for number in range(3)] == [cache.get("c", b"%d" % number) for number in range(3)]


def test_an_eviction_compresses_no_longer_than_the_lock_may_be_held(
    make: Make, runtime: MemoryRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-E07, R-E13: what is missing after a megabyte is dropped, though much is left to try."""
    tried: list[int] = []

    def counting(value: bytes) -> bytes:
        tried.append(len(value))
        return packed(value)

    monkeypatch.setattr(packed_together, "packed", counting)
    cache = make(Counts(500), max_bytes=8 << 20, packs=Packs.UNUSED)
    for number in range(300):
        cache.put("c", b"%d" % number, random.Random(number).randbytes(10_000))

    removed = cache.evict(5_000, Priority.MEDIUM, runtime.ledger.bounds.ranking)

    assert (removed.entries, cache.counters.compressions) == (1, 0)
    assert 1_000_000 < sum(tried) < 1_100_000


def test_a_value_without_room_leaves_the_older_one_in_its_place(make: Make, runtime: MemoryRuntime) -> None:
    """R-E07: where it is replaced; what is put in place of another is not to be found as it was."""
    cache = make(Counts(9), max_bytes=10_000, packs=Packs.UNUSED)
    ranked(runtime, {"pinned": Priority.CRITICAL})
    assert cache.replace("pinned", b"1", b"old")
    owned = cache.owned_bytes()

    assert not cache.replace("pinned", b"1", bytes(20_000))
    assert (cache.get("pinned", b"1"), cache.owned_bytes(), cache.entries_of("pinned")) == (b"old", owned, 1)
    assert not cache.put("pinned", b"1", bytes(20_000))
    assert (cache.get("pinned", b"1"), cache.owned_bytes()) == (None, 0)


_Packs = st.lists(
    st.tuples(st.sampled_from(["put", "put", "replace", "get", "remove", "pack", "evict"]), st.integers(0, 12)),
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(_Packs, st.integers(12_000, 60_000))
def test_every_byte_is_counted_in_both_forms(steps: list[tuple[str, int]], max_bytes: int) -> None:
    """R-E02, R-E07, R-E10: as the values, the records and the table are, within the bound; a value is what was put."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": "64Gi"})) as runtime,
    ):
        cache = CountedCache(
            "room", runtime, counts=Counts(10), max_bytes=max_bytes, ttl_seconds=MINUTE, packs=Packs.UNUSED
        )
        model: dict[int, bytes] = {}
        for turn, (step, number) in enumerate(steps):
            key, value = b"%d" % number, text(turn, 500 * number + 2)
            match step:
                case "put" | "replace":
                    if (cache.put if step == "put" else cache.replace)("c", key, value):
                        model[number] = value
                case "get":
                    assert cache.get("c", key) in {None, model.get(number)}
                case "remove":
                    cache.remove("c", key)
                case "pack":
                    cache.pack_unused()
                case _:
                    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=1000 * number + 1))
            _check_bytes(cache, max_bytes)
        assert all(cache.get("c", b"%d" % number) in {None, value} for number, value in model.items())


def _check_bytes(cache: CountedCache, max_bytes: int) -> None:
    kept = [*cache.saved(Priority.MEDIUM)]
    counted = sum(ENTRY_BYTES + len(entry.key) + sys.getsizeof(entry.stored) for entry in kept)
    table = sys.getsizeof(dict.fromkeys(range(len(kept)))) if kept else 0
    assert [use.owned_bytes for use in cache.collections()] == ([counted] if kept else [])
    # A table that has lost entries is as large as it was.
    assert counted + table <= cache.owned_bytes() <= counted + 4 * (table + 232)
    assert counted <= max_bytes


_Steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.sampled_from(["put", "get", "remove"])), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(_Steps)
def test_it_holds_what_an_ordered_dictionary_with_the_same_bounds_would(steps: list[tuple[str, int, str]]) -> None:
    """R-E06: against the plainest model."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": "4Gi"})) as runtime,
    ):
        cache = CountedCache("room", runtime, counts=Counts(6, 4), max_bytes=1 << 30, ttl_seconds=MINUTE)
        model: dict[tuple[str, int], int] = {}
        for turn, (collection, number, step) in enumerate(steps):
            name, key = (collection, number), b"%d" % number
            if step == "put":
                model.pop(name, None)
                own = [each for each in model if each[0] == collection]
                for each in own[: max(0, len(own) - 3)]:
                    del model[each]
                for each in [*model][: max(0, len(model) - 5)]:
                    del model[each]
                model[name] = turn
                assert cache.put(collection, key, b"%d" % turn)
            elif step == "get":
                expected = model.pop(name, None)
                if expected is not None:
                    model[name] = expected
                assert cache.get(collection, key) == (None if expected is None else b"%d" % expected)
            else:
                assert cache.remove(collection, key) == (model.pop(name, None) is not None)
        assert {use.name: use.entries for use in cache.collections()} == {
            name: count for name in "ab" if (count := sum(each[0] == name for each in model))
        }
