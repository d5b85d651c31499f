import random
import threading
from pathlib import Path

import pytest

from membudget_contract.policy import EVICTABLE, Priority
from membudget_runtime.cache import BoundedCache
from membudget_runtime.ledger import Ledger
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.replacement import AdaptiveFifo, LeastFrequentlyUsed, LeastRecentlyUsed, Replacement
from membudget_runtime.spill import SpillStore
from runtime.fakes import MB, RANKING, HandClock, budgets_with, ledger_of, start

NAME = "semanticCache"
THREADS = 64
TURNS = 600
KEYS = 1500
CEILING = 4 * MB
LOOK_UPS = 8


def what_went_wrong(cache: BoundedCache[int], ledger: Ledger, chance: random.Random) -> list[str]:
    """Look-ups, a put, and now and then a spill and an eviction."""
    key, collection = int(KEYS * chance.random() ** 3), chance.choice(["low", "medium", "high"])
    expected = f"{collection}/{key}/".encode() * (100 + key % 100)
    found = [cache.get(collection, key) for _ in range(LOOK_UPS)]
    wrong = [f"{collection}/{key}: {value!r:.60}" for value in found if value not in {None, expected}]
    cache.put(key, expected, collection)
    with ledger.lock:
        owned = cache.owned_bytes()
    if chance.random() < 0.01:
        cache.spill(100_000, chance.choice(EVICTABLE), RANKING)
        ledger.evict(100_000, Priority.HIGH)
    return wrong + [f"{owned} bytes owned"] * (owned > CEILING)


@pytest.mark.parametrize("policy", [AdaptiveFifo, LeastRecentlyUsed, LeastFrequentlyUsed])
def test_sixty_four_threads_break_neither_bound_nor_values_nor_counters(
    tmp_path: Path, policy: type[Replacement[int]]
) -> None:
    """R-E02, R-E14, fault 66: get, put, evict, spill and resize of the same keys; hits are read without the lock."""
    ledger, _ = ledger_of(ceilings={NAME: CEILING})
    store = SpillStore(tmp_path, 8 * MB)
    cache: BoundedCache[int] = BoundedCache(
        NAME, ledger, ttl_seconds=1e9, clock=HandClock(), spill=store, compression=False, policy=policy
    )
    wrong: list[str] = []

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(TURNS):
                wrong.extend(what_went_wrong(cache, ledger, chance))
        except Exception as error:  # noqa: BLE001  any is what the test looks for
            wrong.append(repr(error))

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = cache.counters
    assert (wrong, counters.damaged, counters.spills > 0, counters.evictions > 0) == ([], 0, True, True)
    assert counters.hits + counters.misses == THREADS * TURNS * LOOK_UPS
    assert sum(use.entries for use in cache.collections()) == len(cache)
    held = len(cache)  # none where an eviction of all came last
    assert cache.clear() == held
    assert (cache.owned_bytes(), cache.spilled_bytes()) == (0, 0)


@pytest.mark.parametrize("ttl", [0.0, -1.0])
def test_what_has_no_time_to_live_is_never_served(ttl: float) -> None:
    """R-E02, fault 65: and leaves on the first look."""
    ledger, _ = ledger_of(ceilings={NAME: MB})
    cache: BoundedCache[str] = BoundedCache(NAME, ledger, ttl_seconds=ttl, clock=HandClock())
    cache.put("a", b"value")
    assert (cache.get("default", "a"), len(cache), cache.owned_bytes()) == (None, 0, 0)


def test_an_infinite_time_to_live_never_ends() -> None:
    """R-E02, fault 65."""
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={NAME: MB}, clock=clock)
    cache: BoundedCache[str] = BoundedCache(NAME, ledger, ttl_seconds=float("inf"), clock=clock)
    cache.put("a", b"value")
    clock.now = 1e15
    assert (cache.expire().entries, cache.get("default", "a")) == (0, b"value")


def test_a_million_tiny_keys_and_megabyte_keys_stay_within_the_bound() -> None:
    """R-E02, fault 65: keys and tables count."""
    ledger, _ = ledger_of(ceilings={NAME: 32 * MB})
    cache: BoundedCache[object] = BoundedCache(NAME, ledger, ttl_seconds=1.0, clock=HandClock())
    for number in range(1_000_000):
        cache.put(number, b"")
        if number % 1000 == 0:
            assert cache.owned_bytes() <= 32 * MB
    tiny = len(cache)
    for number in range(100):
        assert cache.put(number.to_bytes(MB, "little"), b"")
        assert cache.owned_bytes() <= 32 * MB
    assert (tiny > 60_000, len(cache) >= 20) == (True, True)
    assert not cache.put(bytes(33 * MB), b"")


def test_a_resize_keeps_the_most_valuable_and_flushes_nothing() -> None:
    """R-E02: at once, and what was used stays although it came first."""
    ledger, _ = ledger_of(ceilings={NAME: 32 * MB})
    cache: BoundedCache[int] = BoundedCache(NAME, ledger, ttl_seconds=1e9, clock=HandClock(), compression=False)
    for number in range(8000):
        cache.put(number, bytes(2048), "low")
    for number in range(1000):
        cache.get("low", number)
    Reclaimer(ledger, start()).apply(budgets_with({NAME: 6 * MB}))
    kept = sum(cache.holds("low", number) for number in range(1000))
    assert 0.99 * 1000 <= kept  # one goes after each 256 spared: a bounded search
    assert (4 * MB < cache.owned_bytes() <= 6 * MB, len(cache) > 1800) == (True, True)


def test_hits_of_all_look_ups_are_told_and_unknown_before_the_first() -> None:
    """R-E02: the ratio, with compressions and refusals beside it."""
    ledger, _ = ledger_of(ceilings={NAME: MB})
    cache: BoundedCache[str] = BoundedCache(NAME, ledger, ttl_seconds=1.0, clock=HandClock())
    ratios = [cache.counters.hit_ratio]
    cache.put("a", bytes(5000))
    cache.put("b", random.Random(1).randbytes(2 * MB))
    ratios += [cache.get("default", key) and cache.counters.hit_ratio for key in "aa"]
    assert cache.get("default", "b") is None
    counters = cache.counters
    assert (ratios, counters.hit_ratio) == ([None, 1.0, 1.0], 2 / 3)
    assert (counters.compressions, counters.refused) == (1, 1)
