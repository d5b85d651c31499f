import random
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_runtime.entry import RECORD_BYTES, STEP_ENTRIES, Entry, EntryList
from membudget_runtime.ghosts import Ghosts, Return
from membudget_runtime.replacement import (
    LARGEST_SHARE,
    LEAST_SHARE,
    LOOKS,
    MOST_USES,
    AdaptiveFifo,
    LeastFrequentlyUsed,
    LeastRecentlyUsed,
    Replacement,
)

KEYS = 5_000
ROOM = 500
REQUESTS = 60_000
ORDERS: list[type[Replacement[int]]] = [AdaptiveFifo, LeastRecentlyUsed, LeastFrequentlyUsed]


def entry_of(key: int, length: int = 2048) -> Entry[int]:
    """An entry that lies nowhere."""
    entry = Entry(key, "collection", packed=False, expires_at=0.0)
    entry.length = length
    return entry


def ordered(order_type: type[Replacement[int]], count: int) -> tuple[Replacement[int], list[Entry[int]]]:
    """An order of so many new entries, and they by their keys."""
    order, entries = order_type(), [entry_of(key) for key in range(count)]
    for entry in entries:
        order.add(entry)
    return order, entries


def use(order: Replacement[int], entry: Entry[int]) -> None:
    """A hit, as a cache counts it."""
    if order.reorders:
        order.use(entry)
    else:
        entry.uses = min(MOST_USES, entry.uses + 1)


def drained(order: Replacement[int]) -> list[int]:
    """The keys, in the order in which they go."""
    gone: list[int] = []
    while (entry := order.pop()) is not None:
        gone.append(entry.key)
    return gone


def hit_rate(policy: type[Replacement[int]], requests: Iterable[int]) -> float:
    """Of a cache that has room for ROOM entries of one size."""
    order, held, hits = policy(), dict[int, Entry[int]](), 0
    for key in requests:
        entry = held.get(key)
        if entry is not None:
            hits += 1
            use(order, entry)
            continue
        if len(held) == ROOM:
            gone = order.pop()
            assert gone is not None
            del held[gone.key]
        held[key] = entry_of(key)
        order.add(held[key])
    return hits / REQUESTS


def zipf() -> list[int]:
    """The r-th most popular key is asked for with a weight of 1/r."""
    weights = list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    return random.Random(1).choices(range(KEYS), cum_weights=weights, k=REQUESTS)


def scan() -> list[int]:
    """After every 1,000 of those, 300 keys that come once."""
    mixed, steady = list[int](), zipf()
    for start in range(0, REQUESTS, 1000):
        mixed += steady[start : start + 1000]
        mixed += range(KEYS + start, KEYS + start + 300)
    return mixed[:REQUESTS]


def shift() -> list[int]:
    """After every 2,500 requests, five times ROOM, other keys are the popular ones."""
    return [(rank * 7 + number // 2500 * 997) % KEYS for number, rank in enumerate(zipf())]


@pytest.mark.parametrize(
    ("trace", "at_least_better"), [(zipf, 0.03), (scan, 0.06), (shift, -0.005)], ids=["zipf", "scan", "shift"]
)
def test_the_default_beats_lru_on_zipf_and_scans_and_keeps_up_with_it_on_shifts(
    trace: Callable[[], list[int]], at_least_better: float, publish: Callable[[str], None]
) -> None:
    """R-E02: one default that adapts; the comparison with peers is benches/replacement.py."""
    rates = {policy.__name__: hit_rate(policy, trace()) for policy in ORDERS}
    publish(f"hit rates, {trace.__name__}: " + ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in rates.items()))
    assert rates["AdaptiveFifo"] - rates["LeastRecentlyUsed"] >= at_least_better


def test_least_recently_used_goes_by_the_last_use() -> None:
    """R-E02: one of the policies to choose from."""
    order: LeastRecentlyUsed[int] = LeastRecentlyUsed()
    entries = [entry_of(key) for key in range(5)]
    for entry in entries:
        order.add(entry)
    order.use(entries[1])
    order.use(entries[0])
    order.remove(entries[3])
    assert ([entry.key for entry in order], drained(order)) == ([2, 4, 1, 0], [2, 4, 1, 0])


def test_least_frequently_used_goes_by_the_number_of_uses_then_by_the_last_one() -> None:
    """R-E02: another one."""
    order: LeastFrequentlyUsed[int] = LeastFrequentlyUsed()
    entries = [entry_of(key) for key in range(5)]
    for entry in entries:
        order.add(entry)
    for key in (0, 0, 2, 1, 3):
        order.use(entries[key])
    order.remove(entries[3])
    assert ([entry.key for entry in order], drained(order)) == ([4, 2, 1, 0], [4, 2, 1, 0])


def test_the_default_drops_what_was_never_used_before_what_was() -> None:
    """R-E02: a scan does not push out what is in use."""
    order, entries = ordered(AdaptiveFifo[int], 10)
    for key in (1, 4):
        use(order, entries[key])
    assert (drained(order)[:8], [entry.uses for entry in entries]) == ([0, 2, 3, 5, 6, 7, 8, 9], [0] * 10)


@pytest.mark.parametrize("hit", range(4))
def test_an_entry_that_is_hit_while_the_order_is_walked_is_met_once(hit: int) -> None:
    """R-E02, R-E17: a hit takes no lock, and what is persisted or spilled meanwhile comes once."""
    order, entries = ordered(AdaptiveFifo[int], 4)
    use(order, entries[1])
    walk = iter(order)
    met = [next(walk)]
    entries[hit].uses += 1
    assert sorted(entry.key for entry in [*met, *walk]) == [0, 1, 2, 3]


@pytest.mark.parametrize("order_type", ORDERS)
@pytest.mark.parametrize("gone", [(), (999,), (999, 1000), range(1000), range(1000, 2000), range(3500)], ids=str)
@pytest.mark.parametrize("taken", [1, 2])
def test_what_stays_is_met_whatever_leaves_between_two_steps(
    order_type: type[Replacement[int]], gone: Sequence[int], taken: int
) -> None:
    """R-E02, R-E13: the lock is free between two steps of a walk."""
    order, entries = ordered(order_type, 3500)
    steps = order.steps()
    met = [entry for step in islice(steps, taken) for entry in step]
    for key in gone:
        order.remove(entries[key])
    later = [entry for step in steps for entry in step]
    assert len(met) == taken * STEP_ENTRIES
    assert {*range(3500)} - {*gone} == {entry.key for entry in [*met, *later]} - {*gone}
    assert [entry.key for entry in later] == sorted(entry.key for entry in later)


@pytest.mark.parametrize("order_type", ORDERS)
@pytest.mark.parametrize("used", [(999,), range(1000), range(0, 3500, 7), range(3499, -1, -1)], ids=str)
@pytest.mark.parametrize("taken", [1, 2])
def test_what_moves_between_two_steps_is_met(
    order_type: type[Replacement[int]], used: Sequence[int], taken: int
) -> None:
    """R-E02, R-E13, R-E17: a hit may move an entry, and a search for the next to go spares a hundred."""
    order, entries = ordered(order_type, 3500)
    steps = order.steps()
    met = {entry.key for step in islice(steps, taken) for entry in step}
    for key in used:
        use(order, entries[key])
    gone = {entry.key for entry in (order.pop() for _ in range(20)) if entry is not None}
    met.update(entry.key for step in steps for entry in step)
    assert {*range(3500)} - gone - met == set()


def test_a_walk_that_is_given_up_is_forgotten() -> None:
    """R-E13: a spill looks no further than it must."""
    threaded: EntryList[int] = EntryList()
    for key in range(STEP_ENTRIES + 1):
        threaded.append(entry_of(key))
    walk = iter(threaded)
    next(walk)
    during = len(threaded.walks)
    del walk
    assert (during, threaded.walks) == (1, [])


def test_a_search_for_the_next_entry_looks_at_a_bounded_number() -> None:
    """R-E02: the lock is not held for long where everything was used."""
    order: AdaptiveFifo[int] = AdaptiveFifo()
    entries = [entry_of(key) for key in range(10 * LOOKS)]
    for entry in entries:
        order.add(entry)
        entry.uses = MOST_USES
    gone = order.pop()
    assert gone is not None
    assert (gone.key, sum(entry.uses < MOST_USES for entry in entries)) == (LOOKS, LOOKS)


def test_the_share_of_new_entries_falls_under_steady_popularity_and_rises_under_shifts() -> None:
    """R-E02: what adapts, adapts."""
    shares: list[float] = []
    for requests in (zipf(), shift()):
        order: AdaptiveFifo[int] = AdaptiveFifo()
        held: dict[int, Entry[int]] = {}
        for key in requests:
            if key in held:
                use(order, held[key])
                continue
            if len(held) == ROOM and (gone := order.pop()) is not None:
                del held[gone.key]
            held[key] = entry_of(key)
            order.add(held[key])
        shares.append(order.new_share)
    assert (LEAST_SHARE <= shares[0] < 0.2, 0.4 < shares[1] <= LARGEST_SHARE) == (True, True)


def test_a_mark_tells_where_an_entry_left_from_and_how_long_ago_once() -> None:
    """R-E02: what the default learns from."""
    ghosts = Ghosts()
    ghosts.remember(hash("a"), 10, from_main=False)
    ghosts.remember(hash("b"), 7, from_main=True)
    ghosts.remember(hash("c"), 5, from_main=False)
    found = [ghosts.recall(hash(key)) for key in "abad"]
    assert found == [Return(from_main=False, left_since=5), Return(from_main=True, left_since=0), None, None]


def test_marks_follow_the_number_of_entries_and_cost_eight_bytes_each() -> None:
    """R-E02: exact bytes."""
    ghosts, costs = Ghosts(), list[int]()
    for entries in (0, 1000, 1024, 600, 100, 0):
        ghosts.hold(entries)
        costs.append(ghosts.byte_count)
    assert costs == [64 * 8, 1024 * 8, 1024 * 8, 1024 * 8, 128 * 8, 64 * 8]


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_a_list_threaded_through_entries_is_a_list(steps: list[tuple[bool, int]]) -> None:
    """R-E02: appended and taken out of the middle in any order."""
    threaded: EntryList[int] = EntryList()
    model: list[Entry[int]] = []
    for appends, number in steps:
        if appends or not model:
            model.append(entry_of(number, number))
            threaded.append(model[-1])
        else:
            threaded.remove(model.pop(number % len(model)))
        assert [*threaded] == model
        assert (threaded.count, threaded.weight) == (len(model), sum(entry.length + RECORD_BYTES for entry in model))
        assert (threaded.first, threaded.last) == ((model[0], model[-1]) if model else (None, None))
