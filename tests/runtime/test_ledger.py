import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membudget_contract.policy import Priority, Signal
from membudget_runtime.bounds import Bounds
from membudget_runtime.credit import CREDIT_BYTES
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.ledger import STEP_BYTES, Ledger
from membudget_runtime.room import READ_AGAIN_BYTES, READ_AGAIN_SECONDS
from runtime.fakes import MB, RANKING, HandClock, Pile, ledger_of


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


@pytest.mark.parametrize("signal", [Signal.UNRECLAIMABLE, Signal.RESIDENT_SET_SIZE])
@pytest.mark.parametrize(
    ("seconds", "unmanaged", "room"),
    [
        (0.1, 10, 82),  # the own room is 90: 8 lie where only the sidecar sees them
        (2.0, 10, 82),
        (2.0, 30, 62),  # what grew since is seen at once
        (2.0, 5, 82),  # what shrank since is not believed while the sidecar's figure is fresh
        (2.1, 5, 87),
        (15.0, 10, 82),  # between two looks the 8 stay subtracted
        (15.1, 10, 90),  # the sidecar is gone
    ],
)
def test_what_only_the_sidecar_sees_stays_subtracted_between_its_looks(
    signal: Signal, seconds: float, unmanaged: int, room: int
) -> None:
    """R-E10: memory of a sibling in the cgroup, of the kernel, of a tmpfs (docs/decisions/0002)."""
    clock = HandClock()
    ledger, memory = ledger_of(ceilings={}, target=100, unmanaged=10, clock=clock, signal=signal)
    ledger.tell_room(100 - 10 - 8)
    clock.now, memory.unmanaged = seconds, unmanaged
    assert ledger.room_bytes() == room


@pytest.mark.parametrize(("seconds", "room"), [(0.0, 90), (2.0, 70), (2.1, 70), (15.0, 70)])
def test_a_sidecar_that_sees_less_loosens_nothing(seconds: float, room: int) -> None:
    """R-E10: the own reading is nearer, and now; 20 more are unmanaged since."""
    clock = HandClock()
    ledger, memory = ledger_of(ceilings={}, target=100, unmanaged=10, clock=clock)
    ledger.tell_room(95)
    clock.now, memory.unmanaged = seconds, 30 if seconds else 10
    assert ledger.room_bytes() == room


@pytest.mark.parametrize("told", [40, 95])
@pytest.mark.parametrize(("seconds", "change"), [(0.1, 0), (2.0, 0), (2.1, -20), (15.0, -20)])
def test_the_working_set_is_the_sidecars_to_tell(told: int, seconds: float, change: int) -> None:
    """R-E10: the resident set is no bound of it, in neither direction: fresh the figure rules, then only what moved."""
    clock = HandClock()
    ledger, memory = ledger_of(ceilings={}, target=100, unmanaged=10, clock=clock, signal=Signal.WORKING_SET)
    ledger.tell_room(told)
    clock.now, memory.unmanaged = seconds, 30
    assert ledger.room_bytes() == told + change


def test_without_a_sidecar_the_resident_set_stands_for_the_working_set() -> None:
    """R-E10: and again once it is gone."""
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={}, target=100, unmanaged=10, clock=clock, signal=Signal.WORKING_SET)
    before = ledger.room_bytes()
    ledger.tell_room(40)
    clock.now = 15.1
    assert (before, ledger.room_bytes()) == (90, 90)


def test_the_sidecars_figure_holds_while_the_own_signal_cannot_be_read() -> None:
    """R-E10: for as long as it is fresh; then nobody knows, and the ceilings hold."""
    clock, pile = HandClock(), Pile("index", {"low": 60, "critical": 20})
    ledger, _ = ledger_of(pile, ceilings={"index": 200}, target=100, unmanaged=None, clock=clock)
    ledger.tell_room(50)
    with pytest.raises(NoRoom), ledger.reserve("index", 40):
        pass
    with ledger.reserve("index", 30):
        fresh = (ledger.room_bytes(), pile.held)
    clock.now = 2.1
    with ledger.reserve("index", 100):
        assert (fresh, ledger.room_bytes()) == ((50, {"low": 0, "critical": 20}), None)


def test_a_reading_that_fails_for_a_while_takes_nothing_off_the_next_one() -> None:
    """R-E10: what only the sidecar saw is unknown when the own reading failed at that moment."""
    clock = HandClock()
    ledger, memory = ledger_of(ceilings={}, target=100, unmanaged=None, clock=clock)
    ledger.tell_room(50)
    clock.now, memory.unmanaged = 3.0, 10
    assert ledger.room_bytes() == 90


def test_new_bounds_forget_the_room_that_was_told_for_the_old_ones() -> None:
    """R-E10: a lower target, told before its budgets came, would be subtracted twice."""
    ledger, _ = ledger_of(ceilings={}, target=100, unmanaged=10)
    ledger.tell_room(20)
    ledger.set_bounds(Bounds("next", Signal.UNRECLAIMABLE, 40, {}, RANKING))
    assert ledger.room_bytes() == 30


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


def test_mapped_pages_that_are_not_known_count_as_unmanaged() -> None:
    """R-E10: they are in the signal; what still fits is the same, known or not."""
    pile = Pile("index", {"low": 5})
    ledger, memory = ledger_of(pile, ceilings={}, target=100, signal=Signal.RESIDENT_SET_SIZE)
    figures: list[tuple[int, int | None, int]] = []
    for pile.mapped in (7, None):
        memory.unmanaged = 7  # beside what is owned
        figures.append((ledger.managed_bytes(), ledger.room_bytes(), ledger.over_bytes()))
        ledger.trim()
    assert figures == [(12, 100, -88), (5, 93, -88)]


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


@given(ceiling=st.integers(1, 3 * CREDIT_BYTES), room=st.integers(1, 3 * CREDIT_BYTES), asked=st.integers(1, 5000))
def test_what_is_admitted_without_a_look_never_exceeds_ceiling_or_room(ceiling: int, room: int, asked: int) -> None:
    """R-E10: byte by byte as if every one of them had been looked at, down to the last that fits."""
    pile = Pile("cache", {"critical": 0})
    ledger, _ = ledger_of(pile, ceilings={"cache": ceiling}, target=room)
    while True:
        try:
            ledger.admit(pile, asked, Priority.CRITICAL)
        except (NoRoom, ValueTooLarge):
            break
        pile.held["critical"] += asked
    assert pile.owned_bytes() == min(ceiling, room) // asked * asked


class AskedPile(Pile):
    """Counts how often it is asked what it holds."""

    times = 0

    def owned_bytes(self) -> int:
        """As ever."""
        self.times += 1
        return super().owned_bytes()


ENDS = ["bounds", "tracked", "told", "other", "registered", "evicted", "time", "megabyte"]


@pytest.mark.parametrize("ends", ENDS)
def test_what_was_free_for_one_is_looked_at_anew_when_anything_changed(ends: str) -> None:
    """R-E10: bounds, bytes tracked, a room told, another that needs it, or comes, an eviction, a signal long read."""
    clock, pile, other = HandClock(), Pile("cache", {"low": 0}), Pile("other", {"critical": 0})
    ledger, _ = ledger_of(pile, other, ceilings={"cache": 2 * MB}, target=2 * MB, clock=clock)
    ledger.admit(pile, 1, Priority.LOW)
    assert ledger.spend(pile, 1)
    assert not ledger.spend(pile, CREDIT_BYTES)
    match ends:
        case "bounds":
            ledger.set_bounds(Bounds("next", Signal.UNRECLAIMABLE, None, {"cache": 1}, RANKING))
        case "tracked":
            ledger.count_tracked("cache", 2 * MB - 2)
        case "told":
            ledger.tell_room(1)
        case "other":
            ledger.admit(other, 2 * MB - 2, Priority.HIGH)
        case "registered":
            ledger.register(Pile("third", {"critical": 2 * MB}))
        case "evicted":
            ledger.evict(1, Priority.LOW)
        case "time":
            clock.now += READ_AGAIN_SECONDS
        case _:
            for _ in range(READ_AGAIN_BYTES // 1024):
                with ledger.reserve("cache", 1024):
                    pass
    assert not ledger.spend(pile, 1)


def test_room_that_was_set_aside_and_given_up_is_free_again_without_a_look() -> None:
    """R-E10: of a name that holds nothing of its own: to the byte, and for nobody else."""
    other = Pile("other")
    ledger, _ = ledger_of(other, ceilings={"working": MB}, target=2000)
    ledger.set_aside("other", 500)
    with ledger.reserve("working", 1000):
        (working,) = (component for component in ledger.components if component is not other)
        assert not ledger.spend(working, 501)
        ledger.return_reserved("other", 500)
    spent = [ledger.spend(working, asked) for asked in (1501, 1500, 1)]
    assert (spent, ledger.spend(other, 1)) == ([False, True, False], False)


def test_room_that_was_set_aside_is_not_free_again_where_its_owner_allocated_in_it() -> None:
    """R-E10: an index opened in its reservation holds those bytes when the reservation ends."""
    pile = Pile("index", {"critical": 0})
    ledger, _ = ledger_of(pile, ceilings={"index": 2000})
    with ledger.reserve("index", 1000):
        pile.held["critical"] = 1000
    admitted = 0
    for _ in range(20):
        try:
            ledger.admit(pile, 100, Priority.HIGH)
        except NoRoom:
            break
        pile.held["critical"] += 100
        admitted += 100
    assert admitted == 1000


def test_components_that_take_turns_look_once_each() -> None:
    """R-E10: a look asks every component: some tens of microseconds, for a value of a hundred bytes."""
    piles = [Pile(name, {"critical": 0}) for name in "abcd"]
    asked = AskedPile("e")
    ledger, _ = ledger_of(*piles, ceilings=dict.fromkeys("abc", MB), target=4 * MB)
    ledger.register(asked)
    for turn in range(1000):
        pile = piles[turn % len(piles)]
        ledger.admit(pile, 100, Priority.HIGH)
        pile.held["critical"] += 100
    reading_of_the_signal = 1
    assert asked.times == len(piles) + reading_of_the_signal


def test_credit_that_others_hold_is_taken_back_where_it_is_needed() -> None:
    """R-E10: what fits is admitted, and evicts nothing: nobody holds room by having asked for some before."""
    piles = [Pile(name, {"low": 0}) for name in "abc"]
    ledger, _ = ledger_of(*piles, ceilings={}, target=CREDIT_BYTES)
    for pile in piles:
        ledger.admit(pile, 1, Priority.HIGH)
        pile.held["low"] += 1
    ledger.admit(piles[0], CREDIT_BYTES - 3, Priority.HIGH)
    piles[0].held["low"] += CREDIT_BYTES - 3
    assert ([pile.steps for pile in piles], ledger.over_bytes()) == ([[], [], []], 0)
    assert not any(ledger.spend(pile, 1) for pile in piles)


def test_what_was_free_a_minute_ago_is_not_said_to_be_free_now() -> None:
    """R-E02: an answer that takes only what is free displaces nothing."""
    clock, pile = HandClock(), Pile("cache", {"low": 0})
    ledger, memory = ledger_of(pile, ceilings={}, target=20 * MB, unmanaged=MB, clock=clock)
    assert ledger.is_free(pile, 2 * MB)

    clock.now += 60.0
    memory.unmanaged = 19 * MB

    assert not ledger.is_free(pile, 2 * MB)


def test_what_one_holds_over_its_ceiling_is_room_for_nobody() -> None:
    """R-E10: a ceiling that came down leaves a component without credit, not others with more of it."""
    pile, over = Pile("cache"), Pile("over", {"critical": 500})
    ledger, _ = ledger_of(pile, over, ceilings={"over": 10}, target=1000)
    assert ledger.goes_first(over, 1, Priority.HIGH) is Priority.LOW
    ledger.admit(pile, 1, Priority.HIGH)
    assert (ledger.spend(pile, 500), ledger.spend(pile, 499)) == (False, True)


@pytest.mark.parametrize("reader", ["other", "report"])
def test_no_credit_outlives_the_reading_of_the_signal_it_was_given_by(reader: str) -> None:
    """R-E10: whoever has it read again, the component itself or not."""
    clock, pile, other = HandClock(), Pile("cache"), Pile("other")
    ledger, _ = ledger_of(pile, other, ceilings={}, target=1000, clock=clock)
    ledger.admit(pile, 1, Priority.HIGH)
    clock.now += READ_AGAIN_SECONDS
    if reader == "other":
        ledger.admit(other, 1, Priority.HIGH)
    else:
        ledger.room_bytes()
    assert not ledger.spend(pile, 1)


def test_bytes_that_nobody_admitted_end_every_credit() -> None:
    """R-E10: a component that holds more than it asked for leaves less for all."""
    pile, other = Pile("cache"), Pile("other", {"critical": 0})
    ledger, _ = ledger_of(pile, other, ceilings={}, target=1000)
    ledger.admit(pile, 1, Priority.HIGH)
    other.held["critical"] = 500
    ledger.note_change(other, 500)
    assert not ledger.spend(pile, 1)


_NAMES = "abc"
_COUNTS = st.one_of(st.integers(0, 300), st.integers(0, CREDIT_BYTES + 300))
_BOUNDS = st.integers(0, 3 * CREDIT_BYTES)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit"] * 9 + ["free", "tell", "use", "grant", "track", "evict", "wait"]),
        st.sampled_from(_NAMES),
        _COUNTS,
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(ceilings=st.dictionaries(st.sampled_from(_NAMES), _BOUNDS, max_size=2), room=_BOUNDS, steps=_STEPS)
def test_room_and_ceilings_hold_to_the_byte_whoever_takes_turns(
    ceilings: dict[str, int], room: int, steps: list[tuple[str, str, int]]
) -> None:
    """R-E10: never a byte over, and what fits is admitted without an eviction, as if every byte were looked at."""
    clock, piles = HandClock(), {name: Pile(name, {"low": 0, "critical": 0}) for name in _NAMES}
    ledger, _ = ledger_of(*piles.values(), ceilings={**ceilings, "granted": 1 << 40}, target=room, clock=clock)
    for step, name, count in steps:
        if step == "wait":
            clock.now += READ_AGAIN_SECONDS / 2
        else:
            _take_step(ledger, piles[name], step, count)
        assert ledger.over_bytes() <= 0
        assert all(ledger.held_bytes(piles[each]) <= ceiling for each, ceiling in ceilings.items())


def _take_step(ledger: Ledger, pile: Pile, step: str, count: int) -> None:
    match step:
        case "admit":
            _admit_exactly(ledger, pile, count)
        case "free" | "tell":
            freed = min(count, pile.held["critical"])
            pile.held["critical"] -= freed
            if step == "tell":
                ledger.note_change(pile, -freed)
        case "use":
            with suppress(NoRoom, ValueTooLarge), ledger.reserve(pile.name, count, Priority.HIGH):
                pile.held["critical"] += count
        case "grant":
            with suppress(NoRoom, ValueTooLarge), ledger.reserve("granted", count, Priority.HIGH):
                _admit_exactly(ledger, pile, count // 2)
        case "track":
            if _fits(ledger, pile, count):
                ledger.count_tracked(pile.name, count)
        case _:
            ledger.evict(count, Priority.LOW)


def _fits(ledger: Ledger, pile: Pile, count: int) -> bool:
    limit = ledger.ceiling(pile.name)
    return ledger.over_bytes() + count <= 0 and (limit is None or ledger.held_bytes(pile) + count <= limit)


def _admit_exactly(ledger: Ledger, pile: Pile, count: int) -> None:
    """What fits is admitted and evicts nothing, the rest evicts or is refused; an odd count may be evicted later."""
    fits, before = _fits(ledger, pile, count), ledger.managed_bytes()
    try:
        ledger.admit(pile, count, Priority.HIGH)
    except (NoRoom, ValueTooLarge):
        assert not fits
        return
    assert not fits or ledger.managed_bytes() == before
    pile.held["low" if count % 2 else "critical"] += count


def test_in_observe_mode_nothing_is_admitted_without_a_look() -> None:
    """R-E10, R-P12: what is held over a ceiling does not grow."""
    pile = Pile("cache", {"low": 50})
    ledger, _ = ledger_of(pile, ceilings={"cache": 100})
    ledger.set_bounds(Bounds("next", Signal.UNRECLAIMABLE, None, {"cache": 60}, RANKING, live=False))
    ledger.admit(pile, 1, Priority.LOW)
    assert not ledger.spend(pile, 1)
