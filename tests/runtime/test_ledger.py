import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.policy import Priority, Signal
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.ledger import READ_AGAIN_BYTES, STEP_BYTES
from runtime.fakes import MB, HandClock, Pile, ledger_of


@given(
    target=st.integers(0, 2**40),
    unmanaged=st.integers(0, 2**40),
    held=st.dictionaries(st.sampled_from(["low", "high"]), st.integers(0, 2**40)),
)
def test_room_is_what_the_target_leaves_beside_unmanaged_bytes(
    target: int, unmanaged: int, held: dict[str, int]
) -> None:
    """R-E10: room = target - (signal - managed), and managed bytes are over it by the rest."""
    pile = Pile("index", held)
    ledger, _ = ledger_of(pile, ceilings={}, target=target, unmanaged=unmanaged)
    assert ledger.room_bytes() == target - unmanaged
    assert ledger.over_bytes() == pile.owned_bytes() + unmanaged - target


def test_the_sidecars_figure_counts_while_fresh_and_only_when_smaller() -> None:
    """R-E10: two seconds, then the own reading stands alone."""
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={}, target=100, unmanaged=10, clock=clock)
    ledger.tell_room(50)
    smaller = ledger.room_bytes()
    clock.now = 2.0
    fresh = ledger.room_bytes()
    clock.now = 2.001
    stale = ledger.room_bytes()
    ledger.tell_room(95)
    assert (smaller, fresh, stale, ledger.room_bytes()) == (50, 50, 90, 90)


def test_an_unknown_signal_leaves_only_the_ceilings() -> None:
    """R-E10: unknown is unknown: no room is told, and nothing is refused or evicted for want of it."""
    pile = Pile("index", {"low": 90})
    ledger, _ = ledger_of(pile, ceilings={"index": 100}, target=1, unmanaged=None)
    with ledger.reserve("index", 10):
        assert (ledger.room_bytes(), ledger.over_bytes(), pile.steps) == (None, 0, [])
    with pytest.raises(ValueTooLarge):
        ledger.admit(pile, 101, Priority.HIGH)


def test_a_reservation_counts_until_its_block_ends_however_it_ends() -> None:
    """R-E10: returned on an exception too."""
    pile = Pile("index")
    ledger, _ = ledger_of(pile, ceilings={"index": 100})
    within: list[tuple[int, int]] = []

    def fail_within() -> None:
        with ledger.reserve("index", 60):
            within.append((ledger.held_bytes(pile), ledger.managed_bytes()))
            with ledger.reserve("index", 41):
                within.clear()

    with pytest.raises(NoRoom):
        fail_within()
    assert (within, ledger.held_bytes(pile), ledger.refused) == ([(60, 60)], 0, 1)


def test_a_refusal_says_what_was_asked_and_why() -> None:
    """R-E10: NoRoom is worth another try, ValueTooLarge never."""
    ledger, _ = ledger_of(Pile("index", {"critical": 90}), ceilings={"index": 100})
    with (
        pytest.raises(NoRoom, match="20 bytes do not fit: 90 of 100 bytes are held") as refusal,
        ledger.reserve("index", 20, Priority.HIGH),
    ):
        pass
    assert (refusal.value.component, refusal.value.asked_bytes) == ("index", 20)
    with (
        pytest.raises(ValueTooLarge, match="101 bytes never fit under the ceiling of 100"),
        ledger.reserve("index", 101),
    ):
        pass


@pytest.mark.parametrize("ceilings", [{"index": 100}, {}], ids=["ceiling", "room"])
def test_nothing_is_evicted_for_an_incoming_value_of_a_lower_class(ceilings: dict[str, int]) -> None:
    """R-P07: Low goes for Low; High stays, and the Low value is refused."""
    pile = Pile("index", {"low": 10, "medium": 10, "high": 70})
    ledger, _ = ledger_of(pile, ceilings=ceilings, target=None if ceilings else 100)
    with ledger.reserve("index", 20, Priority.LOW):
        assert pile.held == {"low": 0, "medium": 10, "high": 70}
    with pytest.raises(NoRoom), ledger.reserve("index", 40, Priority.LOW):
        pass
    with ledger.reserve("index", 40, Priority.HIGH):
        assert pile.held == {"low": 0, "medium": 0, "high": 0}


def test_the_component_with_most_bytes_gives_first() -> None:
    """R-E14: inside one class, over all components."""
    small, large = Pile("small", {"low": 10}), Pile("large", {"low": 20, "medium": 100})
    ledger, _ = ledger_of(small, large, ceilings={})
    assert ledger.evict(25, Priority.MEDIUM).freed_bytes == 25
    assert (small.held, large.held) == ({"low": 5}, {"low": 0, "medium": 100})


@pytest.mark.parametrize(("passed", "admitted", "readings"), [(0.1, 0, 2), (0.09, READ_AGAIN_BYTES, 2), (0.09, 9, 1)])
def test_the_signal_is_read_again_after_a_megabyte_or_a_tenth_of_a_second(
    passed: float, admitted: int, readings: int
) -> None:
    """R-E10: unmanaged bytes move meanwhile."""
    clock, pile = HandClock(), Pile("index")
    ledger, memory = ledger_of(pile, ceilings={}, target=1000 * MB, clock=clock)
    ledger.room_bytes()
    ledger.admit(pile, admitted, Priority.LOW)
    clock.now += passed
    ledger.room_bytes()
    assert memory.readings == readings


@pytest.mark.parametrize(("signal", "held"), [(Signal.UNRECLAIMABLE, 5), (Signal.RESIDENT_SET_SIZE, 12)])
def test_mapped_pages_count_only_where_the_signal_has_them(signal: Signal, held: int) -> None:
    """R-E10: dropping them costs nothing and saves no one from an OOM kill."""
    pile = Pile("index", {"low": 5})
    pile.mapped = 7
    ledger, _ = ledger_of(pile, ceilings={}, signal=signal)
    assert (ledger.held_bytes(pile), ledger.managed_bytes()) == (held, held)


def test_admission_far_over_its_bound_evicts_one_step_and_refuses() -> None:
    """R-E10: a budget halved under load must not stop every query for one eviction of half the cache."""
    pile = Pile("index", {"low": 100 * MB})
    ledger, _ = ledger_of(pile, ceilings={"index": 50 * MB})
    with pytest.raises(NoRoom), ledger.reserve("index", 1000, Priority.HIGH):
        pass
    assert pile.held == {"low": 100 * MB - STEP_BYTES}


def test_components_have_names_of_their_own() -> None:
    """R-E10: two under one ceiling would each take all of it."""
    with pytest.raises(ValueError, match="'index' is registered already"):
        ledger_of(Pile("index"), Pile("index"), ceilings={})


def test_reservations_of_many_threads_never_pass_the_ceiling() -> None:
    """R-E10: check and take are one step."""
    pile = Pile("index")
    ledger, _ = ledger_of(pile, ceilings={"index": 1000})
    peaks: list[int] = []

    def work() -> None:
        for _ in range(500):
            try:
                with ledger.reserve("index", 300):
                    peaks.append(ledger.held_bytes(pile))
            except NoRoom:
                continue

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(peaks) <= 900, ledger.held_bytes(pile)) == (True, 0)
