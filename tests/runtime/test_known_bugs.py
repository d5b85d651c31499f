"""Bugs of comparable code bases, put in at run time: for each, a test of ours must fail."""

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from membudget_contract.policy import EVICTABLE
from membudget_runtime.entry import Entry
from membudget_runtime.ledger import Ledger
from membudget_runtime.replacement import AdaptiveFifo
from runtime import test_cache


def inverted_weight(patch: pytest.MonkeyPatch) -> None:
    """Known bug 1: High goes first."""
    patch.setattr("membudget_runtime.ledger.EVICTABLE", EVICTABLE[::-1])


def same_score_for_all(patch: pytest.MonkeyPatch) -> None:
    """Known bug 2: every candidate is as good as any other."""
    chance = random.Random(1)

    def pop(order: AdaptiveFifo[str]) -> Entry[str] | None:
        entries = [*order]
        if not entries:
            return None
        entry = chance.choice(entries)
        order.remove(entry)
        return entry

    patch.setattr(AdaptiveFifo, "pop", pop)


def maximum_is_only_a_hint(patch: pytest.MonkeyPatch) -> None:
    """Known bug 18: admission admits everything."""

    def admit(*_arguments: object) -> None:
        return

    patch.setattr(Ledger, "admit", admit)


class OnceOnlyLock:
    """Not re-entrant; who would wait for itself for ever fails after a second instead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        """As a lock does."""
        taken = self._lock.acquire(timeout=1.0) if blocking else self._lock.acquire(blocking=False)
        assert taken or not blocking, "the lock is waited for by the thread that holds it"
        return taken

    def release(self) -> None:
        """As a lock does."""
        self._lock.release()


def lock_taken_twice(patch: pytest.MonkeyPatch) -> None:
    """Known bug 21: a lock that is not re-entrant, and a path that takes it twice."""
    patch.setattr("membudget_runtime.yielding_lock.threading.RLock", OnceOnlyLock)


def priorities() -> None:
    """Low before Medium before High."""
    test_cache.test_low_goes_before_medium_before_high()


def recency() -> None:
    """A smaller ceiling keeps what was used last."""
    test_cache.test_a_smaller_ceiling_keeps_the_most_recently_used()


def bound() -> None:
    """Never a byte over the ceiling."""
    test_cache.test_random_use_leaves_little_dead_and_nobody_is_refused()


def eviction() -> None:
    """A put that evicts, in a thread of its own."""
    test_cache.test_one_key_replaced_for_long_evicts_nobody_else()


BUGS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = [
    (inverted_weight, priorities),
    (same_score_for_all, recency),
    (maximum_is_only_a_hint, bound),
    (lock_taken_twice, eviction),
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
    """R-P07, R-E02, R-E14: green without the bug, red with it."""
    check()
    bug(patch)
    with pytest.raises(AssertionError):
        check()
