"""Bugs 23 and 24 of comparable code bases, put in at run time: for each, a test of ours must fail."""

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator

import pytest

from membudget_contract.control_api import AllocationRequest, Granted
from membudget_runtime.interpreter import leak_detector
from membudget_runtime.interpreter.object_counts import count_objects
from membudget_runtime.limiter import STALE_SECONDS, AllocationLimiter
from membudget_runtime.yielding_lock import YieldingLock
from runtime import test_leak_detector, test_limiter
from runtime.fakes import MB, HandClock


def strong_references(patch: pytest.MonkeyPatch) -> None:
    """Known bug 23: the detector keeps what it watches."""
    watched: list[object] = []

    def count_and_keep() -> dict[str, int]:
        watched.extend(thing for thing in gc.get_objects() if isinstance(thing, test_leak_detector.Node))
        return count_objects()

    patch.setattr(leak_detector, "count_objects", count_and_keep)


def check_then_add(patch: pytest.MonkeyPatch) -> None:
    """Known bug 24: two requests see the same free bytes."""

    def no_lock(_lock: YieldingLock, *_error: object) -> None:
        return

    patch.setattr(YieldingLock, "__enter__", no_lock)
    patch.setattr(YieldingLock, "__exit__", no_lock)


def the_same_id_twice(patch: pytest.MonkeyPatch) -> None:
    """Known bug 24: the second grant of an id hides the first, whose bytes nobody can release."""
    request = AllocationLimiter.request

    def forgetful(limiter: AllocationLimiter, asked: AllocationRequest) -> Granted:
        limiter._grants.pop(asked.id, None)  # pyright: ignore[reportPrivateUsage]
        return request(limiter, asked)

    patch.setattr(AllocationLimiter, "request", forgetful)


def cleanup_without_bytes(patch: pytest.MonkeyPatch) -> None:
    """Known bug 24: a stale grant is forgotten, its bytes are not returned."""

    def forget(limiter: AllocationLimiter) -> int:
        grants = limiter._grants  # pyright: ignore[reportPrivateUsage]
        latest = limiter._clock() - STALE_SECONDS  # pyright: ignore[reportPrivateUsage]
        return sum(grants.pop(name).byte_count for name in [*grants] if grants[name].granted_at <= latest)

    patch.setattr(AllocationLimiter, "release_stale", forget)


def references() -> None:
    """What the detector counted dies."""
    with contextlib.closing(test_leak_detector.Process()) as process:
        test_leak_detector.test_it_holds_none_of_the_objects_it_counted(process)


def ceiling() -> None:
    """Under a hundred threads; a few times, as a race may be missed."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        test_limiter.test_a_hundred_threads_never_hold_more_than_the_ceiling_and_leave_nothing()
    finally:
        sys.setswitchinterval(before)


BUGS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = [
    (strong_references, references),
    (check_then_add, ceiling),
    (the_same_id_twice, test_limiter.test_the_same_id_again_is_the_same_grant_and_its_time_goes_on),
    (cleanup_without_bytes, test_limiter.test_a_grant_that_its_owner_forgot_is_taken_back_after_ten_minutes),
]


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Undone before the test ends."""
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.mark.parametrize(("bug", "check"), BUGS, ids=[bug.__name__ for bug, _ in BUGS])
def test_a_known_bug_is_caught(
    patch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None], check: Callable[[], None]
) -> None:
    """R-E09, R-E12: green without the bug, red with it."""
    check()
    bug(patch)
    with pytest.raises(AssertionError):
        check()


def test_a_clock_that_goes_back_takes_nothing_and_underflows_nothing() -> None:
    """R-E09: known bug 24; a grant of the future is no stale one, and its owner still releases it."""
    clock = HandClock()
    limiter, ledger = test_limiter.limiter_of(clock=clock)
    clock.now = 10_000.0
    limiter.request(test_limiter.asked("a", MB))
    clock.now = 1.0
    assert (limiter.release_stale(), limiter.held_bytes, limiter.release("a").released_bytes) == (0, MB, MB)
    assert (limiter.held_bytes, test_limiter.reserved(ledger)) == (0, {})
