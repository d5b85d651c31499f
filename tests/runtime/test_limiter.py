"""Leave to allocate: a ceiling, room, ids, and grants that their owners forgot."""

import random
import sys
import threading
from collections.abc import Iterator

import pytest

from membudget_contract.control_api import Allocation, AllocationRequest, Granted, Released
from membudget_runtime.errors import IdTaken, NoRoom, TooManyHeld, UnknownComponent, ValueTooLarge
from membudget_runtime.ledger import Ledger
from membudget_runtime.limiter import CEILING_BYTES, HELD_AT_MOST, STALE_SECONDS, AllocationLimiter
from runtime.fakes import MB, HandClock, Pile, ledger_of

NAME = "embeddingBuffer"


def limiter_of(
    ceiling: int = 20 * MB, target: int | None = None, clock: HandClock | None = None
) -> tuple[AllocationLimiter, Ledger]:
    """Over a cache of 10 MB of Low data, 10 MB of High data, and this ceiling of the embedding buffer."""
    clock = clock or HandClock()
    cache = Pile("cache", {"low": 10 * MB, "high": 10 * MB})
    ledger, _ = ledger_of(cache, ceilings={NAME: ceiling}, target=target, clock=clock)
    return AllocationLimiter(ledger, clock), ledger


def asked(grant_id: str, byte_count: int, component: str = NAME) -> AllocationRequest:
    """A request."""
    return AllocationRequest(id=grant_id, component=component, request_bytes=byte_count, purpose="test")


def reserved(ledger: Ledger) -> dict[str, int]:
    """By component, where there is any."""
    held = {component.name: ledger.reserved_bytes(component) for component in ledger.components}
    return {name: byte_count for name, byte_count in held.items() if byte_count}


def test_a_grant_counts_in_its_component_until_it_is_released() -> None:
    """R-E09: 50 MiB by default; what is released is free at once."""
    limiter, ledger = limiter_of()
    granted = limiter.request(asked("a", 5 * MB))
    assert granted == Granted(id="a", granted_bytes=5 * MB, expires_in_seconds=600)
    assert (reserved(ledger), limiter.held_bytes, ledger.managed_bytes()) == ({NAME: 5 * MB}, 5 * MB, 25 * MB)
    assert limiter.release("a") == Released(id="a", released_bytes=5 * MB)
    assert (reserved(ledger), limiter.held_bytes, CEILING_BYTES) == ({}, 0, 50 * MB)


def test_the_same_id_again_is_the_same_grant_and_its_time_goes_on() -> None:
    """R-E09: a request that is tried again after a lost answer holds nothing twice."""
    clock = HandClock()
    limiter, ledger = limiter_of(clock=clock)
    limiter.request(asked("a", MB))
    clock.now = 100.0
    assert limiter.request(asked("a", MB)).expires_in_seconds == 500
    assert reserved(ledger) == {NAME: MB}


@pytest.mark.parametrize("other", [asked("a", 2 * MB), asked("a", MB, "cache")])
def test_an_id_that_holds_something_else_is_refused(other: AllocationRequest) -> None:
    """R-E09: two owners under one id would release each other's bytes."""
    limiter, ledger = limiter_of()
    limiter.request(asked("a", MB))
    with pytest.raises(IdTaken, match="'a' holds 1048576 bytes of embeddingBuffer"):
        limiter.request(other)
    assert reserved(ledger) == {NAME: MB}


def test_releasing_twice_or_what_never_was_does_nothing() -> None:
    """R-E09: another grant's bytes are not given up for it."""
    limiter, ledger = limiter_of()
    limiter.request(asked("a", MB))
    limiter.request(asked("b", MB))
    assert [limiter.release(name).released_bytes for name in ("a", "a", "never")] == [MB, 0, 0]
    assert (reserved(ledger), limiter.held_bytes) == ({NAME: MB}, MB)


def test_over_the_limiters_ceiling_is_refused_for_now_and_above_it_for_ever() -> None:
    """R-E09: typed, so that a caller knows whether to try again."""
    limiter, ledger = limiter_of(ceiling=200 * MB)
    limiter.request(asked("a", 30 * MB))
    with pytest.raises(NoRoom, match="31457280 of 52428800 bytes are granted to others"):
        limiter.request(asked("b", 21 * MB))
    with pytest.raises(ValueTooLarge):
        limiter.request(asked("b", 50 * MB + 1))
    assert (ledger.refused, reserved(ledger)) == (2, {NAME: 30 * MB})
    limiter.request(asked("b", 20 * MB))


def test_a_grant_needs_room_under_the_ceiling_of_its_component() -> None:
    """R-E09: 20 of 150 MB in the Production profile, although the limiter would grant 50."""
    limiter, ledger = limiter_of(ceiling=20 * MB)
    limiter.request(asked("a", 15 * MB))
    with pytest.raises(NoRoom, match=r"embeddingBuffer: 6291456 bytes do not fit"):
        limiter.request(asked("b", 6 * MB))
    with pytest.raises(ValueTooLarge):
        limiter.request(asked("b", 21 * MB))
    assert (ledger.refused, reserved(ledger), limiter.held_bytes) == (2, {NAME: 15 * MB}, 15 * MB)


def test_a_grant_evicts_what_it_may_and_is_refused_by_what_it_may_not() -> None:
    """R-E09: room over all components; Low data goes for it, High data stays."""
    limiter, ledger = limiter_of(target=25 * MB)
    limiter.request(asked("a", 12 * MB))
    assert ledger.components[0].owned_bytes() == 13 * MB
    with pytest.raises(NoRoom):
        limiter.request(asked("b", 4 * MB))
    assert ledger.components[0].owned_bytes() == 10 * MB


def test_a_component_that_nobody_has_is_refused() -> None:
    """R-E09: a misspelt one would be bounded by nothing."""
    limiter, _ = limiter_of()
    with pytest.raises(UnknownComponent, match="no component 'embedingBuffer'; there are cache, embeddingBuffer"):
        limiter.request(asked("a", MB, "embedingBuffer"))


def test_a_grant_that_its_owner_forgot_is_taken_back_after_ten_minutes() -> None:
    """R-E09: not a second before; releasing it then does nothing."""
    clock = HandClock()
    limiter, ledger = limiter_of(clock=clock)
    limiter.request(asked("old", MB))
    clock.now = 60.0
    limiter.request(asked("young", 2 * MB))
    clock.now = STALE_SECONDS - 0.001
    assert limiter.release_stale() == 0
    clock.now = STALE_SECONDS
    assert (limiter.release_stale(), reserved(ledger)) == (MB, {NAME: 2 * MB})
    assert limiter.release("old").released_bytes == 0


def test_the_list_is_bounded_and_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-S09: an answer has a bound, and says how much it leaves out."""
    monkeypatch.setattr("membudget_runtime.limiter.LISTED_AT_MOST", 2)
    limiter, _ = limiter_of()
    for number in range(5):
        limiter.request(asked(f"grant {number}", MB))
    listed = limiter.listing()
    assert ([one.id for one in listed.allocations], listed.omitted) == (["grant 4", "grant 3"], 3)
    assert (listed.held_bytes, listed.ceiling_bytes) == (5 * MB, CEILING_BYTES)
    assert listed.allocations[0] == Allocation(
        id="grant 4", component=NAME, granted_bytes=MB, purpose="test", expires_in_seconds=600
    )


def test_there_are_only_so_many_grants() -> None:
    """R-E09: grants of one byte must not become a leak of their own."""
    limiter, _ = limiter_of()
    for number in range(HELD_AT_MOST):
        limiter.request(asked(str(number), 1))
    with pytest.raises(TooManyHeld):
        limiter.request(asked("one more", 1))


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns 5,000 times as often, so that they meet in the middle of things."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_a_hundred_threads_never_hold_more_than_the_ceiling_and_leave_nothing() -> None:
    """R-E09: correct under threads, with requests, releases, repetitions and cleanups mixed."""
    limiter, ledger = limiter_of(ceiling=200 * MB)
    most: list[int] = []
    together = threading.Barrier(100)

    def work(seed: int) -> None:
        chosen = random.Random(seed)
        together.wait()
        held: list[str] = []
        for number in range(400):
            request = asked(f"{seed}-{number}", chosen.randrange(1, 4 * MB))
            try:
                limiter.request(request)
                limiter.request(request)
            except NoRoom:
                for name in held:
                    limiter.release(name)
                    limiter.release(name)
                held.clear()
                continue
            held.append(request.id)
            most.append(limiter.held_bytes)
        for name in held:
            limiter.release(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most) <= CEILING_BYTES, len(most) > 100) == (True, True)
    assert (limiter.held_bytes, reserved(ledger), limiter.listing().allocations) == (0, {}, ())
