"""How far the process may grow without its index and caches: refused above it, typed, and told in the report."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_socket import Refused, ask
from membudget_contract import control_api as api
from membudget_contract.control_api import AllocationRequest, Track
from membudget_contract.plan import BASE_LIMIT_BYTES
from membudget_contract.policy import Signal
from membudget_contract.profiles import EMBEDDING_BUFFER, WORKING
from membudget_runtime.bounds import Bounds, bounds_of, start_budgets
from membudget_runtime.errors import NoRoom, OverBaseLimit, UnknownComponent, ValueTooLarge
from membudget_runtime.ledger import Ledger
from membudget_runtime.limiter import AllocationLimiter
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.report import report
from membudget_runtime.tracking import TrackedAllocations
from runtime.fakes import MB, NOTHING_COLLECTED, RANKING, FakeAllocator, FakeMemory, HandClock, Pile, start

CEILINGS = {"cache": 500 * MB, EMBEDDING_BUFFER: 500 * MB, WORKING: 500 * MB}


class GivingAllocator(FakeAllocator):
    """Free heap pages that the kernel gets only when asked for."""

    def __init__(self, memory: FakeMemory, spare: int) -> None:
        super().__init__()
        self._memory = memory
        self._spare = spare

    def trim(self) -> bool:
        """All of them."""
        assert self._memory.unmanaged is not None
        self._memory.unmanaged -= self._spare
        self._spare = 0
        return super().trim()


class MappedToo(FakeMemory):
    """A process with a gigabyte of mapped files, which other signals count."""

    def signal_bytes(self, signal: Signal) -> int | None:
        """As the kernel has it."""
        held = super().signal_bytes(signal)
        return held if held is None or signal is Signal.UNRECLAIMABLE else held + 1024 * MB


def process(
    base: int | None, *, cache: int = 0, limit: int | None = 100 * MB, spare: int = 0, signal: Signal | None = None
) -> tuple[Ledger, AllocationLimiter, TrackedAllocations]:
    """A process that is so large without its cache; None: the kernel does not say."""
    pile = Pile("cache", {"low": cache})
    memory = MappedToo(base)
    memory.components.append(pile)
    bounds = Bounds("plan", signal or Signal.UNRECLAIMABLE, None, CEILINGS, RANKING, base_limit_bytes=limit)
    ledger = Ledger(bounds, memory=memory, allocator=GivingAllocator(memory, spare), clock=HandClock())
    ledger.register(pile)
    return ledger, AllocationLimiter(ledger, HandClock()), TrackedAllocations(ledger)


def asked(byte_count: int, component: str = EMBEDDING_BUFFER, name: str = "a") -> AllocationRequest:
    """A request."""
    return AllocationRequest(id=name, component=component, request_bytes=byte_count)


def told(byte_count: int, component: str = WORKING, name: str = "a") -> Track:
    """What exists already."""
    return Track(id=name, component=component, tracked_bytes=byte_count)


def test_a_grant_that_would_pass_the_limit_is_refused_and_may_be_tried_again() -> None:
    """R-E10: typed as one that does not fit now; it is granted when others have freed."""
    ledger, limiter, _ = process(70 * MB)
    limiter.request(asked(20 * MB, name="other"))
    with pytest.raises(OverBaseLimit, match="base limit of 104857600 bytes") as refused:
        limiter.request(asked(11 * MB))
    assert (isinstance(refused.value, NoRoom), refused.value.limit_bytes) == (True, 100 * MB)
    assert (ledger.refused, limiter.held_bytes, ledger.base_bytes()) == (1, 20 * MB, 90 * MB)
    limiter.release("other")
    assert limiter.request(asked(11 * MB)).granted_bytes == 11 * MB


@pytest.mark.parametrize("signal", Signal)
def test_caches_and_index_are_no_part_of_it(signal: Signal) -> None:
    """R-E10: whatever the policy's signal is; their own ceilings and the room bound them."""
    ledger, limiter, _ = process(50 * MB, cache=400 * MB, signal=signal)
    limiter.request(asked(50 * MB))
    assert ledger.base_bytes() == 100 * MB
    with ledger.reserve("cache", 90 * MB):
        assert ledger.base_bytes() == 100 * MB


def test_what_never_fits_is_refused_for_ever() -> None:
    """R-E10: a caller must not try again."""
    _, limiter, _ = process(0, limit=10 * MB)
    with pytest.raises(ValueTooLarge, match="base limit of 10485760"):
        limiter.request(asked(10 * MB + 1))


def test_memory_that_came_on_top_is_not_tracked_over_the_limit() -> None:
    """R-E10: it is in the process already, so the process is what counts; what is tracked stays."""
    ledger, _, tracking = process(99 * MB)
    tracking.track(told(30 * MB))
    ledger.set_bounds(replace(ledger.bounds, base_limit_bytes=98 * MB))
    for refused in (told(1, name="b"), told(30 * MB + 1)):
        with pytest.raises(OverBaseLimit):
            tracking.track(refused)
    assert (ledger.tracked_bytes(), ledger.refused) == (30 * MB, 2)
    assert tracking.track(told(20 * MB)).tracked_bytes == 20 * MB
    assert tracking.track(told(MB, "cache", "c")).tracked_bytes == MB


def test_unknown_refuses_nothing() -> None:
    """R-E10: no reading is no reason; nor is a runtime without the limit."""
    for base, limit in ((None, 1 * MB), (500 * MB, None)):
        ledger, limiter, tracking = process(base, limit=limit)
        limiter.request(asked(MB))
        tracking.track(told(MB))
        assert (ledger.base_bytes() is None, ledger.refused) == (base is None, 0)


def test_a_misspelt_component_is_still_refused_as_such() -> None:
    """R-E10: also above the limit."""
    _, limiter, tracking = process(500 * MB)
    with pytest.raises(UnknownComponent):
        limiter.request(asked(MB, "wroking"))
    with pytest.raises(UnknownComponent):
        tracking.track(told(MB, "wroking"))


def test_free_pages_of_the_heap_are_given_back_before_anything_is_refused() -> None:
    """R-E10: what another operation freed is no reason to refuse this one."""
    ledger, limiter, _ = process(95 * MB, spare=20 * MB)
    limiter.request(asked(20 * MB))
    assert (ledger.base_bytes(), ledger.refused) == (95 * MB, 0)


@given(base=st.integers(0, 120), asks=st.lists(st.integers(1, 60), max_size=12))
def test_grants_never_bring_the_base_over_its_limit(base: int, asks: list[int]) -> None:
    """R-E10: whatever is asked, and a refusal leaves everything as it was."""
    ledger, limiter, _ = process(base * MB)
    for number, amount in enumerate(asks):
        before = (ledger.base_bytes(), limiter.held_bytes)
        with contextlib.suppress(NoRoom, ValueTooLarge):
            limiter.request(asked(amount * MB, name=str(number)))
            continue
        assert (ledger.base_bytes(), limiter.held_bytes) == before
    assert (ledger.base_bytes() or 0) <= max(100, base) * MB


def test_the_plans_limit_holds_and_in_observe_mode_the_start_ups() -> None:
    """R-E10: 100 MiB where nothing is said."""
    tight = msgspec.structs.replace(start(), base_limit_bytes=MB)
    assert bounds_of(start(), start()).base_limit_bytes == BASE_LIMIT_BYTES == 100 * MB
    assert bounds_of(tight, start()).base_limit_bytes == MB
    assert bounds_of(msgspec.structs.replace(tight, live=False), start()).base_limit_bytes == 100 * MB


def test_the_report_tells_base_and_limit() -> None:
    """R-E10: for people and for the sidecar."""
    ledger, limiter, _ = process(30 * MB, cache=200 * MB)
    limiter.request(asked(5 * MB))
    said = report(ledger, NOTHING_COLLECTED)
    assert (said.base_bytes, said.base_limit_bytes) == (35 * MB, 100 * MB)
    assert report(process(None)[0], NOTHING_COLLECTED).base_bytes is None


def test_over_the_socket_a_refusal_says_when_to_try_again(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E10, R-S09: with this very process, whose base the kernel tells."""
    environment = {"MEMBUDGET_TOTAL": "4Gi", "MEMBUDGET_BASE_LIMIT": "4Gi"}
    socket = tmp_path / "engine.sock"
    with contextlib.closing(MemoryRuntime(tmp_path / "state", environment)) as runtime:
        runtime.serve(socket)
        base = runtime.report().base_bytes
        assert base is not None
        publish(f"base of this test's process: {base / MB:.0f} MiB")
        ample = start_budgets(environment)  # of this very process, however large it has become
        tight = msgspec.structs.replace(ample, components=CEILINGS, base_limit_bytes=base + 10 * MB)
        ask(socket, "PUT", api.BUDGETS_PATH, api.Freed, tight)
        with pytest.raises(Refused) as refused:
            ask(socket, "POST", api.ALLOCATIONS_PATH, api.Granted, asked(40 * MB))
        ask(socket, "POST", api.ALLOCATIONS_PATH, api.Granted, asked(1))
    assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (503, "OverBaseLimit", "1")
