"""A service's own dicts as a component: asked by class, outside the lock, and what they freed is looked at."""

import threading
import weakref

import pytest

from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.policy import Priority
from membudget_runtime.adopted import Adopted
from membudget_runtime.ledger import Ledger
from membudget_runtime.reclaim import Reclaimer
from runtime.fakes import MB, RANKING, Pile, budgets_with, ledger_of, start


class Dicts:
    """A holder that does what it is asked, and notes it."""

    def __init__(self, held: int = 0) -> None:
        self.held = held
        self.heard: list[tuple[str, int]] = []
        self.unlocked = True
        self.ledger: Ledger | None = None

    def adopted(self, name: str = "own", collection: str | None = None) -> Adopted:
        """As the component `name`."""
        return Adopted(
            name,
            lambda: self.held,
            collection=collection,
            cleanup=lambda: self._give("cleanup", 10),
            spill=lambda wanted: self._give("spill", wanted),
            evict=lambda wanted: self._give("evict", wanted),
            limit=lambda most: self._give("limit", max(0, self.held - most), told=most),
        )

    def _give(self, what: str, byte_count: int, told: int | None = None) -> None:
        self.heard.append((what, byte_count if told is None else told))
        self.held -= min(self.held, byte_count)
        if self.ledger is not None:
            self.unlocked = self.unlocked and is_free(self.ledger)


def is_free(ledger: Ledger) -> bool:
    """Whether another thread gets the ledger's lock now."""
    got = threading.Event()

    def take() -> None:
        with ledger.lock:
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(timeout=2)


@pytest.mark.parametrize(
    ("means", "heard"), [(Means.CLEANUP, ("cleanup", 10)), (Means.SPILL, ("spill", 300)), (Means.EVICT, ("evict", 300))]
)
def test_a_holder_is_asked_without_the_lock_and_what_it_freed_is_told(means: Means, heard: tuple[str, int]) -> None:
    """R-E23: one callback for each kind of action; its bytes are those it says."""
    dicts = Dicts(1000)
    ledger, _ = ledger_of(dicts.adopted(), ceilings={})
    dicts.ledger = ledger
    freed = Reclaimer(ledger, start()).free(FreeRequest(means=means, target_bytes=300))
    assert (dicts.heard, dicts.unlocked) == ([heard], True)
    assert freed.owned_before_bytes - freed.owned_after_bytes == min(heard[1], 1000)
    assert freed.collections == ({} if means is Means.CLEANUP and not freed.entries else {"own": heard[1]})


def test_a_limit_is_told_when_it_changes_and_only_then() -> None:
    """R-E23: lower and higher; the same one again is not told twice."""
    dicts = Dicts(5 * MB)
    ledger, _ = ledger_of(dicts.adopted(), ceilings={})
    reclaimer = Reclaimer(ledger, start())
    for ceiling in (3 * MB, 3 * MB, 4 * MB):
        reclaimer.apply(budgets_with({"own": ceiling}))
    assert (dicts.heard, dicts.held) == ([("limit", 3 * MB), ("limit", 4 * MB)], 3 * MB)


def test_in_observe_mode_a_holder_hears_nothing() -> None:
    """R-E23, R-P12: nothing is given back, and nothing set otherwise."""
    dicts = Dicts(5 * MB)
    ledger, _ = ledger_of(dicts.adopted(), ceilings={})
    reclaimer = Reclaimer(ledger, start())
    reclaimer.apply(budgets_with({"own": MB}, live=False))
    reclaimer.enforce()
    assert (dicts.heard, dicts.held) == ([], 5 * MB)


def test_a_holder_without_a_limit_function_is_evicted_down_to_its_ceiling() -> None:
    """R-E23: by whichever of its functions there is."""
    held, unlocked = [5 * MB], list[bool]()

    def evict(wanted: int) -> None:
        held[0] -= wanted
        unlocked.append(is_free(ledger))

    ledger, _ = ledger_of(Adopted("own", lambda: held[0], evict=evict), ceilings={})
    Reclaimer(ledger, start()).apply(budgets_with({"own": 2 * MB}))
    assert all(unlocked)
    assert held == [2 * MB]


def test_holders_are_asked_by_their_class_and_critical_ones_never() -> None:
    """R-E23, R-P07, R-E14: a cache of a lower class goes before a holder of a higher one, and the reverse."""
    low, high, critical = Dicts(100), Dicts(100), Dicts(100)
    pile = Pile("cache", {"medium": 100})
    parts = [low.adopted("a", "low"), high.adopted("b", "high"), critical.adopted("c", "critical"), pile]
    ledger, _ = ledger_of(*parts, ceilings={})
    assert ledger.bounds.ranking is RANKING
    reclaimer = Reclaimer(ledger, start())
    reclaimer.free(FreeRequest(means=Means.EVICT, target_bytes=150))
    assert (low.held, pile.owned_bytes(), high.held) == (0, 50, 100)
    reclaimer.free(FreeRequest(means=Means.EVICT, target_bytes=1000))
    assert (low.held, pile.owned_bytes(), high.held, critical.held) == (0, 0, 0, 100)
    assert critical.heard == []


def broken(_byte_count: int = 0) -> None:
    """Any function of a stranger's."""
    raise LookupError("a key is gone")


@pytest.mark.parametrize("means", [Means.CLEANUP, Means.SPILL, Means.EVICT])
def test_a_holder_that_fails_is_named_and_the_others_are_asked(means: Means) -> None:
    """R-E23: nothing it raises ends an action."""
    dicts = Dicts(1000)
    bad = Adopted("bad", lambda: 2000, cleanup=broken, spill=broken, evict=broken, limit=broken)
    ledger, _ = ledger_of(bad, dicts.adopted(), ceilings={})
    freed = Reclaimer(ledger, start()).free(FreeRequest(means=means, target_bytes=5000))
    assert freed.problem == "bad: LookupError: a key is gone"
    assert (len(dicts.heard) == 1) == (means is not Means.SPILL)


def test_a_limit_that_could_not_be_taken_over_is_told_again() -> None:
    """R-E23: with the reason in the answer."""
    dicts, failing = Dicts(1000), [True]

    def limit(most: int) -> None:
        dicts.heard.append(("limit", most))
        if failing:
            broken()

    own = Adopted("own", lambda: dicts.held, limit=limit)
    problems = [own.apply(budgets_with({"own": MB}))]
    failing.clear()
    problems += [own.apply(budgets_with({"own": MB})), own.apply(budgets_with({}))]
    assert (problems, dicts.heard) == (["own: LookupError: a key is gone", None, None], [("limit", MB)] * 2)


def test_bytes_that_cannot_be_told_are_the_last_ones_and_never_none() -> None:
    """R-E23, R-E10: an unknown figure must not look like freed memory."""
    told = [700]
    own = Adopted("own", lambda: told[0])
    known = own.owned_bytes()
    told.clear()
    assert (known, own.owned_bytes(), own.collections()[0].owned_bytes) == (700, 700, 700)


def test_what_a_holder_dropped_in_cycles_is_collected() -> None:
    """R-E23: freed is what the kernel can have."""

    class Node:
        def __init__(self) -> None:
            self.itself = self

    gone: list[int] = []
    nodes = [Node()]

    def evict(_wanted: int) -> None:
        weakref.finalize(nodes[0], gone.append, 1)
        nodes.clear()

    own = Adopted("own", lambda: 100 * len(nodes), evict=evict)
    assert own.give_up(100, Priority.MEDIUM, RANKING).freed_bytes == 100
    assert gone == [1]
