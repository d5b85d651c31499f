"""What a service may ask of its own runtime."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from membudget_contract.control_api import FreeRequest, Means, Track
from membudget_contract.policy import Priority, Signal
from membudget_runtime.cache import BoundedCache
from membudget_runtime.errors import UnknownComponent
from membudget_runtime.memory_runtime import MemoryRuntime
from runtime.fakes import MB, budgets_with


@pytest.fixture
def runtime(tmp_path: Path) -> Generator[MemoryRuntime]:
    """With bounds wide enough for this process, whatever it ran before."""
    with contextlib.closing(
        MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "16Gi", "MEMBUDGET_BASE_LIMIT": "16Gi"})
    ) as made:
        yield made


def test_a_snapshot_sums_up(runtime: MemoryRuntime) -> None:
    """R-E23: components and the rest are the signal, to the byte; what a cache holds and what is tracked is in it."""
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
    cache.put(b"key", os.urandom(3 * MB), "handbook")
    runtime.track(Track(id="model", component="index", tracked_bytes=2 * MB, type="weights"))
    moment = runtime.snapshot()
    owned = {part.name: part.owned_bytes for part in moment.breakdown.components}
    status, unmanaged = moment.status, moment.breakdown.unmanaged_bytes
    assert owned == {"semanticCache": cache.owned_bytes(), "index": 2 * MB}
    assert unmanaged is not None
    assert sum(owned.values()) + unmanaged == status.signal_bytes
    assert status.available_bytes == 16384 * MB - (status.signal_bytes or 0)
    assert (status.signal, status.budget_bytes, status.enforced) == (Signal.UNRECLAIMABLE, 16384 * MB, True)
    assert status.usage_ratio == (status.signal_bytes or 0) / (16384 * MB)
    assert [use.name for use in moment.breakdown.collections] == ["handbook"]
    assert moment.pid == os.getpid()


def test_a_figure_that_the_kernel_does_not_give_is_absent_and_never_zero(runtime: MemoryRuntime) -> None:
    """R-E23: everything made of it is absent too."""
    runtime.close()
    status, breakdown = runtime.status(), runtime.breakdown()
    assert (status.signal_bytes, status.available_bytes, status.usage_ratio) == (None, None, None)
    assert breakdown.unmanaged_bytes is None


def test_limits_are_those_of_the_plan_and_who_is_over_is_named(runtime: MemoryRuntime) -> None:
    """R-E23: as soon as it holds; in Observe mode the start-up ceilings, nothing is enforced."""
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
    cache.put(b"key", os.urandom(3 * MB), "critical")
    runtime.apply(budgets_with({"semanticCache": MB}))
    limits = runtime.limits()
    assert (dict(limits.ceilings), limits.priorities["high"]) == ({"semanticCache": MB}, Priority.HIGH)
    assert (limits.excluded, limits.budget_bytes) == (frozenset({"pinned"}), 1 << 50)
    assert (runtime.status().over, runtime.status().plan_hash) == (("semanticCache",), limits_hash(runtime))
    runtime.apply(budgets_with({"semanticCache": MB}, live=False))
    limits, status = runtime.limits(), runtime.status()
    assert (limits.target_bytes, limits.room_bytes, status.enforced) == (None, None, False)
    assert limits.ceilings["semanticCache"] == 16384 * MB * 40 // 150


def limits_hash(runtime: MemoryRuntime) -> str | None:
    """Of the plan that the report names."""
    return runtime.report().plan_hash


def test_enforce_comes_down_to_what_holds_where_unmanaged_memory_grew(runtime: MemoryRuntime) -> None:
    """R-E23: bytes that nobody manages take room away; nothing else is asked for it than the call."""
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
    while cache.owned_bytes() < 60 * MB and cache.put(os.urandom(8), os.urandom(64 * 1024)):
        pass
    for means in (Means.COLLECT, Means.TRIM):  # garbage of former tests, which enforce would find too
        runtime.free(FreeRequest(means=means, target_bytes=0))
    signal = runtime.status().signal_bytes or 0
    tight = msgspec.structs.replace(budgets_with({}), soft_entry_bytes=signal, room_margin_bytes=0)
    runtime.apply(tight)
    grown = bytearray(b"x") * (20 * MB)
    before = cache.owned_bytes()
    freed = runtime.enforce()
    assert len(grown) == 20 * MB
    assert before - cache.owned_bytes() == freed.owned_before_bytes - freed.owned_after_bytes
    assert before - cache.owned_bytes() > 19 * MB
    assert runtime.enforce().entries == 0


def test_a_cache_is_cleared_by_its_name(runtime: MemoryRuntime) -> None:
    """R-E02, R-E23: that one alone, and its bytes are gone; a name that is no cache's is an error."""
    first: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
    second: BoundedCache[bytes] = runtime.cache("historyCache", ttl_seconds=60.0)
    for number in range(2500):
        first.put(b"%d" % number, bytes(100), "low" if number % 2 else "high")
    second.put(b"key", b"value")
    runtime.track(Track(id="model", component="index", tracked_bytes=1, type=""))
    assert (runtime.clear("semanticCache"), len(first), first.owned_bytes(), len(second)) == (2500, 0, 0, 1)
    assert runtime.clear("semanticCache") == 0
    with pytest.raises(UnknownComponent, match="no cache 'index'; there are historyCache, semanticCache"):
        runtime.clear("index")
