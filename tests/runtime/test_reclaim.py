import gc
import random
import weakref
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.policy import EVICTABLE, Priority, Signal
from membudget_runtime.arena import SEGMENT_BYTES
from membudget_runtime.cache import BoundedCache
from membudget_runtime.component import Component
from membudget_runtime.ledger import STEP_BYTES, Ledger
from membudget_runtime.reclaim import SPILL_STEP_BYTES, Reclaimer
from membudget_runtime.spill import SpillStore
from runtime.fakes import MB, HandClock, Pile, budgets_with, ledger_of, start


@pytest.fixture(autouse=True)
def _own_gc_thresholds() -> Generator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def reclaimer_of(*components: Component, signal: Signal = Signal.UNRECLAIMABLE) -> Reclaimer:
    """Over these components, without ceilings."""
    ledger, _ = ledger_of(*components, ceilings={}, signal=signal)
    return Reclaimer(ledger, start())


def cache_with(folder: Path, clock: HandClock, spill_bytes: int) -> tuple[BoundedCache[int], Reclaimer]:
    """A cache of 3000 Low values of 2 kB, the first 1200 of them past their time."""
    ledger, _ = ledger_of(ceilings={}, clock=clock)
    store = SpillStore(folder, spill_bytes)
    cache: BoundedCache[int] = BoundedCache("cache", ledger, ttl_seconds=10.0, clock=clock, spill=store)
    cache.compression = False
    for key in range(3000):
        clock.now = 0.0 if key < 1200 else 5.0
        cache.put(key, bytes(2048), "low")
    clock.now = 10.0
    return cache, Reclaimer(ledger, start())


def test_cleanup_drops_what_expired_and_nothing_else(tmp_path: Path) -> None:
    """R-E14: the soft rung costs no one anything."""
    cache, reclaimer = cache_with(tmp_path, HandClock(), MB)
    freed = reclaimer.free(FreeRequest(means=Means.CLEANUP, target_bytes=MB))
    assert (freed.entries, len(cache), freed.exhausted, freed.problem) == (1200, 1800, False, None)
    assert freed.owned_before_bytes - freed.owned_after_bytes >= sum(freed.collections.values()) - SEGMENT_BYTES


def test_spill_moves_values_to_disk_and_keeps_them(tmp_path: Path) -> None:
    """R-E13: the hard rung; known bug 5 would free nothing."""
    cache, reclaimer = cache_with(tmp_path, HandClock(), 64 * MB)
    freed = reclaimer.free(FreeRequest(means=Means.SPILL, target_bytes=STEP_BYTES // 2))
    assert (len(cache), freed.entries > 200, freed.problem) == (3000, True, None)
    assert freed.owned_before_bytes - freed.owned_after_bytes >= STEP_BYTES // 2


def test_a_full_spill_folder_leaves_the_entries_and_says_so(tmp_path: Path) -> None:
    """R-E13: the entry stays in memory."""
    cache, reclaimer = cache_with(tmp_path, HandClock(), 1000)
    freed = reclaimer.free(FreeRequest(means=Means.SPILL, target_bytes=MB))
    assert (freed.entries, len(cache), cache.get("low", 2999)) == (0, 3000, bytes(2048))
    assert "of 1000 bytes" in (freed.problem or "")


@pytest.mark.parametrize("up_to", Priority)
def test_eviction_goes_up_to_the_class_asked_and_never_to_critical(up_to: Priority) -> None:
    """R-P07, R-E14: also when Critical is what was asked."""
    held = {"low": 10, "medium": 10, "high": 10, "critical": 10, "pinned": 10}
    pile = Pile("index", held)
    freed = reclaimer_of(pile).free(FreeRequest(means=Means.EVICT, target_bytes=1000, up_to=up_to))
    gone = [priority.value.lower() for priority in EVICTABLE if priority.rank <= up_to.rank]
    assert freed.collections == dict.fromkeys(gone, 10)
    assert pile.held == held | dict.fromkeys(gone, 0)


@pytest.mark.parametrize(
    ("held", "up_to", "exhausted"),
    [
        ({"critical": 10, "pinned": 10}, Priority.HIGH, True),
        ({"high": 10}, Priority.HIGH, False),
        ({"high": 10}, Priority.MEDIUM, True),
        ({"low": 5}, Priority.LOW, True),
    ],
)
def test_exhausted_means_nothing_is_left_that_the_request_may_touch(
    held: dict[str, int], up_to: Priority, exhausted: bool
) -> None:
    """R-E14: the ladder stops asking then."""
    freed = reclaimer_of(Pile("index", held)).free(FreeRequest(means=Means.EVICT, target_bytes=5, up_to=up_to))
    assert freed.exhausted == exhausted


def test_eviction_and_new_budgets_hold_the_lock_for_one_step_at_a_time() -> None:
    """R-E14: queries go on between steps of a 100 MB eviction."""
    pile = Pile("index", {"low": 200 * MB})
    reclaimer = reclaimer_of(pile)
    reclaimer.free(FreeRequest(means=Means.EVICT, target_bytes=100 * MB))
    reclaimer.apply(msgspec.structs.replace(start(), components={"index": 50 * MB}))
    assert (max(pile.steps), pile.owned_bytes()) == (STEP_BYTES, 50 * MB)


def sparse_cache() -> tuple[BoundedCache[int], Ledger]:
    """5000 values of 4 kB, of which 2000 at random were replaced by one byte: 10 MB live on 20 MB of pages."""
    ledger, _ = ledger_of(ceilings={"cache": 40 * MB})
    cache: BoundedCache[int] = BoundedCache("cache", ledger, ttl_seconds=1.0, clock=HandClock(), compression=False)
    for key in range(5000):
        cache.put(key, bytes(4000), "low")
    for key in random.Random(3).sample(range(5000), 2000):
        cache.put(key, b"x", "low")
    return cache, ledger


@pytest.mark.parametrize("ceiling", [13 * MB, 5 * MB])
def test_new_budgets_come_down_in_a_sparse_cache_too(ceiling: int) -> None:
    """R-E02, R-E14: a step that only moved values together is not the last one."""
    cache, ledger = sparse_cache()
    Reclaimer(ledger, start()).apply(budgets_with({"cache": ceiling}))
    assert (ceiling - 2 * MB < cache.owned_bytes() <= ceiling, len(cache) > 0) == (True, True)


def test_eviction_frees_what_was_asked_in_a_sparse_cache_too() -> None:
    """R-E14: more than moving values together gives."""
    cache, ledger = sparse_cache()
    freed = Reclaimer(ledger, start()).free(FreeRequest(means=Means.EVICT, target_bytes=15 * MB))
    assert freed.owned_before_bytes - freed.owned_after_bytes >= 15 * MB
    assert (freed.entries > 0, len(cache) > 0) == (True, True)


def test_new_budgets_come_down_to_ceilings_and_room() -> None:
    """R-E14: Resize, with 10 MB that no component owns and a soft entry of 80 MB less 2 of margin."""
    index, cache = Pile("index", {"low": 40 * MB}), Pile("cache", {"low": 90 * MB, "critical": 20 * MB})
    ledger, _ = ledger_of(index, cache, ceilings={}, unmanaged=10 * MB)
    budgets = msgspec.structs.replace(
        start(),
        total_bytes=100 * MB,
        soft_entry_bytes=80 * MB,
        room_margin_bytes=2 * MB,
        components={"index": 30 * MB, "cache": 100 * MB},
    )
    freed = Reclaimer(ledger, start()).apply(budgets)
    observed = msgspec.structs.replace(budgets, live=False)
    assert (index.owned_bytes() <= 30 * MB, index.owned_bytes() + cache.owned_bytes()) == (True, 68 * MB)
    assert (freed.owned_before_bytes, freed.owned_after_bytes) == (150 * MB, 68 * MB)
    assert Reclaimer(ledger, start()).apply(observed).entries == 0


@pytest.mark.parametrize("signal", Signal)
def test_budgets_of_observe_mode_touch_nothing(signal: Signal) -> None:
    """R-E14: with every bound broken and the signal far over the budget."""
    pile, thresholds = Pile("index", {"low": 90 * MB}), gc.get_threshold()
    pile.mapped = 50 * MB
    ledger, _ = ledger_of(pile, ceilings={}, unmanaged=500 * MB, signal=signal)
    budgets = msgspec.structs.replace(
        budgets_with({"index": 1}, live=False), signal=signal, soft_entry_bytes=MB, gc_thresholds=(123, 4, 5)
    )
    freed = Reclaimer(ledger, start()).apply(budgets)
    assert (freed.entries, freed.owned_before_bytes, freed.owned_after_bytes) == (0, 90 * MB, 90 * MB)
    assert (pile.steps, pile.paged_out, pile.applied, pile.spares_given) == ([], [], [], 0)
    assert (gc.get_threshold(), ledger.room_bytes()) == (thresholds, None)


@pytest.mark.parametrize(("signal", "paged_out"), [(Signal.UNRECLAIMABLE, []), (Signal.RESIDENT_SET_SIZE, [50])])
def test_mapped_pages_are_given_back_only_where_the_signal_has_them(signal: Signal, paged_out: list[int]) -> None:
    """R-E14: elsewhere it slows queries down and frees nothing that counts."""
    pile = Pile("index")
    pile.mapped = 100
    reclaimer_of(pile, signal=signal).free(FreeRequest(means=Means.CLEANUP, target_bytes=50))
    assert pile.paged_out == paged_out


@pytest.mark.parametrize("means", [Means.COLLECT, Means.TRIM])
def test_collect_and_trim_drop_no_entries(means: Means) -> None:
    """R-E14: garbage and free pages only."""
    pile = Pile("index", {"low": 10})
    freed = reclaimer_of(pile).free(FreeRequest(means=means, target_bytes=1000))
    assert (freed.entries, pile.held) == (0, {"low": 10})


class Knot:
    """Holds itself: no reference count will ever free it."""

    def __init__(self) -> None:
        self.knot = self


def test_collect_collects_garbage() -> None:
    """R-E14: known bug 4: every kind of action has someone who does it."""
    garbage = Knot()
    seen = weakref.ref(garbage)
    del garbage
    reclaimer_of().free(FreeRequest(means=Means.COLLECT, target_bytes=0))
    assert seen() is None


def test_every_free_gives_back_what_a_cache_keeps_spare(tmp_path: Path) -> None:
    """R-E14: bytes are freed when the kernel has them."""
    cache, reclaimer = cache_with(tmp_path, HandClock(), MB)
    reclaimer.free(FreeRequest(means=Means.EVICT, target_bytes=STEP_BYTES))
    assert cache.used_bytes() == cache.owned_bytes()


@pytest.mark.parametrize("means", [Means.SPILL, Means.EVICT])
@pytest.mark.parametrize(
    ("signal", "paged_out"), [(Signal.RESIDENT_SET_SIZE, [6 * MB]), (Signal.UNRECLAIMABLE, list[int]())]
)
def test_what_values_cannot_give_mapped_pages_do_where_the_signal_has_them(
    means: Means, signal: Signal, paged_out: list[int]
) -> None:
    """R-S05: a mapped index that jumps past the first rung between two looks is no reason to stay at the last one."""
    pile = Pile("index", {"low": 4 * MB} if means is Means.EVICT else {})
    pile.mapped = 50 * MB
    reclaimer_of(pile, signal=signal).free(FreeRequest(means=means, target_bytes=10 * MB - 4 * MB * (not pile.held)))
    assert pile.paged_out == paged_out


def test_a_spill_that_may_not_take_long_stops_with_what_it_has_freed(tmp_path: Path) -> None:
    """R-S04: on a slow disk the ladder goes on to eviction; nothing else could act meanwhile."""
    ledger, _ = ledger_of(ceilings={})
    cache: BoundedCache[int] = BoundedCache(
        "cache", ledger, ttl_seconds=100.0, clock=HandClock(), spill=SpillStore(tmp_path, 256 * MB)
    )
    cache.compression = False
    for key in range(16_000):
        cache.put(key, bytes(2048), "low")
    times = iter([0.0, 0.1, 0.2, 0.6])
    freed = Reclaimer(ledger, start(), lambda: next(times)).free(
        FreeRequest(means=Means.SPILL, target_bytes=30 * MB, within_seconds=0.5)
    )
    given_back = freed.owned_before_bytes - freed.owned_after_bytes
    assert freed.problem == "stopped after 0.5 s: the disk is too slow for this"
    assert 2 * SPILL_STEP_BYTES <= given_back < 3 * SPILL_STEP_BYTES
