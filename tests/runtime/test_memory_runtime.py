import contextlib
import gc
import logging
import os
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from membudget_contract.control_api import Budgets, FreeRequest, Means, Room
from membudget_contract.kept_file import read_kept
from membudget_runtime.bounds import bounds_of, start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import KEPT_BUDGETS, MemoryRuntime
from runtime.fakes import MB, budgets_with, start

ENVIRONMENT = {"MEMBUDGET_TOTAL": "1000Mi"}


class Life(Protocol):
    """Starts a runtime."""

    def __call__(self, environment: Mapping[str, str] = ...) -> MemoryRuntime:
        """With these variables."""
        ...


@pytest.fixture(autouse=True)
def _own_gc_thresholds() -> Generator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.fixture
def life(tmp_path: Path) -> Generator[Life]:
    """Starts the runtime of one state folder, as often as called; each ends with the test."""
    with contextlib.ExitStack() as stack:

        def begin(environment: Mapping[str, str] = ENVIRONMENT) -> MemoryRuntime:
            runtime = MemoryRuntime(tmp_path / "state" / "folder", environment)
            stack.callback(runtime.close)
            return runtime

        yield begin


def kept_in(folder: Path) -> Path:
    """Where the runtime of a test keeps its budgets."""
    return folder / "state" / "folder" / KEPT_BUDGETS


def tighter(total: int) -> Budgets:
    """A policy's budgets of another total, with one ceiling."""
    return msgspec.structs.replace(
        start_budgets(ENVIRONMENT),
        plan_hash=f"plan of {total}",
        total_bytes=total,
        soft_entry_bytes=total * 8 // 10,
        components={"semanticCache": total // 10},
    )


def bounds(runtime: MemoryRuntime) -> tuple[str | None, int | None, int | None]:
    """What the report says of them: hash, whether there is room, the cache's ceiling."""
    report = runtime.report()
    return report.plan_hash, report.room_bytes and 1, runtime.ledger.ceiling("semanticCache")


def test_without_a_former_life_the_built_in_profile_holds(life: Life) -> None:
    """R-E10: from the first moment, refined by the environment: 40 of 150 parts."""
    runtime = life()
    assert bounds(runtime)[1:] == (1, 1000 * MB * 40 // 150 + 1)


def test_budgets_come_back_in_the_next_life(life: Life) -> None:
    """R-E10: with the sidecar gone, the last budgets hold."""
    life().apply(tighter(500 * MB))
    assert bounds(life()) == (f"plan of {500 * MB}", 1, 50 * MB)


def test_a_torn_kept_file_gives_built_in_bounds_and_a_warning(
    life: Life, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-E10: unknown is not zero."""
    former = life()
    built_in = bounds(former)
    former.apply(tighter(500 * MB))
    kept = kept_in(tmp_path)
    kept.write_bytes(kept.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert bounds(life()) == built_in
    assert ["starting with built-in bounds" in message for message in caplog.messages] == [True]


def test_observe_leaves_the_start_up_ceilings_and_no_room_until_enforce_comes_back(
    life: Life,
) -> None:
    """R-E10: what would have been done is the sidecar's to export."""
    runtime = life()
    built_in = bounds(runtime)
    runtime.apply(msgspec.structs.replace(tighter(500 * MB), live=False))
    observed = bounds(runtime)
    runtime.tell_room(Room(room_bytes=1))
    still = bounds(runtime)
    runtime.apply(tighter(500 * MB))
    assert (observed[1:], still) == ((None, built_in[2]), observed)
    assert bounds(runtime) == (f"plan of {500 * MB}", 1, 50 * MB)


def test_observe_takes_nothing_away_and_lets_nothing_grow(life: Life) -> None:
    """R-E02, R-E10: 190 MiB under a large Enforce; the built-in ceiling is 40 MiB, and only what comes in evicts."""
    runtime = life({})
    runtime.apply(budgets_with({"semanticCache": 300 * MB}))
    cache: BoundedCache[int] = runtime.cache("semanticCache", ttl_seconds=3600.0)
    for number in range(1990):
        cache.put(number, os.urandom(100_000))
    settings = (gc.get_threshold(), cache.compression, runtime.spill.max_bytes)
    before = (len(cache), cache.owned_bytes(), cache.used_bytes())
    observe = msgspec.structs.replace(
        budgets_with({"semanticCache": 1}, live=False),
        gc_thresholds=(123, 4, 5),
        spill_max_bytes=1,
        cache_compression=True,
    )
    freed = runtime.apply(observe)
    runtime.cache("responses", ttl_seconds=1.0)
    after = (len(cache), cache.owned_bytes(), cache.used_bytes())
    assert (freed.entries, after, before[0], before[1] > 190 * MB) == (0, before, 1990, True)
    assert (gc.get_threshold(), cache.compression, runtime.spill.max_bytes) == settings
    for number in range(3000):
        assert cache.put(10_000 + number, os.urandom(100_000 if number % 2 else 100)) is True
        assert cache.owned_bytes() <= before[1]
    assert cache.owned_bytes() > before[1] - 2 * MB


def test_what_left_in_observe_mode_does_not_come_back_over_the_ceiling(life: Life) -> None:
    """R-E10: the start-up ceiling bounds what is admitted."""
    runtime = life({})
    ceiling = runtime.ledger.ceiling("semanticCache") or 0
    runtime.apply(budgets_with({"semanticCache": 300 * MB}))
    cache: BoundedCache[int] = runtime.cache("semanticCache", ttl_seconds=3600.0)
    for number in range(600):
        cache.put(number, os.urandom(100_000))
    runtime.apply(budgets_with({"semanticCache": 300 * MB}, live=False))
    cache.clear()
    for number in range(600):
        cache.put(number, os.urandom(100_000))
    assert ceiling - 2 * MB < cache.owned_bytes() <= ceiling


def test_a_life_that_begins_in_observe_mode_is_configured_by_the_start(life: Life) -> None:
    """R-E10: kept budgets of Observe mode set nothing, nor do they for a cache that comes later."""
    before = gc.get_threshold()
    observe = msgspec.structs.replace(budgets_with({}, live=False), spill_max_bytes=1, gc_thresholds=(123, 4, 5))
    life({}).apply(observe)
    gc.set_threshold(*before)
    runtime = life({})
    cache: BoundedCache[int] = runtime.cache("semanticCache", ttl_seconds=1.0)
    assert (runtime.report().plan_hash, gc.get_threshold()) == (observe.plan_hash, before)
    assert (cache.compression, runtime.spill.max_bytes) == (start().cache_compression, start().spill_max_bytes)


def test_a_total_in_percent_starts_with_the_built_in_one_and_a_warning(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    """R-E10: the limit it is a percent of is the sidecar's to know; what else the environment says still holds."""
    with caplog.at_level(logging.WARNING):
        runtime = life({"MEMBUDGET_TOTAL": "75%", "MEMBUDGET_SIGNAL": "ResidentSetSize"})
    assert runtime.ledger.bounds == bounds_of(
        start_budgets({"MEMBUDGET_SIGNAL": "ResidentSetSize"}), start_budgets({"MEMBUDGET_SIGNAL": "ResidentSetSize"})
    )
    assert ["built-in total of 150Mi" in message for message in caplog.messages] == [True]


def test_budgets_hold_although_they_cannot_be_kept(
    life: Life, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-E10: a full or foreign disk is a warning."""
    runtime = life()
    (kept_in(tmp_path) / "in the way").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        runtime.apply(tighter(500 * MB))
    assert (bounds(runtime)[2], ["were not kept" in message for message in caplog.messages]) == (50 * MB, [True])


def test_what_is_kept_is_what_holds_when_many_apply_at_once(life: Life, tmp_path: Path) -> None:
    """R-E10: the last one in both."""
    runtime = life()
    threads = [threading.Thread(target=runtime.apply, args=(tighter(total * MB),)) for total in range(500, 516)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = read_kept(kept_in(tmp_path), Budgets)
    assert kept is not None
    assert kept.plan_hash == runtime.report().plan_hash


def test_a_cache_of_the_runtime_is_bounded_reported_and_spilled(life: Life) -> None:
    """R-E02, R-E13: under the name of its component."""
    runtime = life({"MEMBUDGET_TOTAL": "16Gi"})  # room beside this process, whatever it ran before
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
    value = os.urandom(5000)
    cache.put(b"key", value)
    runtime.free(FreeRequest(means=Means.SPILL, target_bytes=1))
    (component,) = runtime.report().components
    assert (component.name, component.budget_bytes) == ("semanticCache", runtime.ledger.ceiling("semanticCache"))
    assert (component.entries, component.spilled_bytes, component.owned_bytes) == (
        1,
        cache.spilled_bytes(),
        cache.owned_bytes(),
    )
    assert (cache.spilled_bytes() > 0, cache.get("default", b"key")) == (True, value)
