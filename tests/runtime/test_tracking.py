"""Allocations tracked by id, component, size and type."""

import pytest

from membudget_contract.control_api import Released, Report, Track, Tracked
from membudget_contract.policy import Priority
from membudget_runtime.errors import NoRoom, TooManyHeld, UnknownComponent
from membudget_runtime.ledger import Ledger
from membudget_runtime.report import report
from membudget_runtime.tracking import TrackedAllocations
from runtime.fakes import MB, NOTHING_COLLECTED, Pile, ledger_of


def told(tracked_id: str, byte_count: int, component: str = "cache") -> Track:
    """What somebody allocated."""
    return Track(id=tracked_id, component=component, tracked_bytes=byte_count, type="list")


def reported(ledger: Ledger) -> Report:
    """What the runtime says of this ledger."""
    return report(ledger, NOTHING_COLLECTED)


def test_tracked_bytes_count_in_their_component_until_released() -> None:
    """R-E10: as owned bytes, against the ceiling, and in the report."""
    ledger, _ = ledger_of(Pile("cache", {"low": MB}), ceilings={"cache": 5 * MB})
    tracking = TrackedAllocations(ledger)
    assert tracking.track(told("a", 3 * MB)) == Tracked(id="a", component="cache", tracked_bytes=3 * MB, type="list")
    part = reported(ledger).components[0]
    assert (part.owned_bytes, part.tracked_bytes, reported(ledger).tracked_bytes) == (4 * MB, 3 * MB, 3 * MB)
    assert reported(ledger).managed_bytes == 4 * MB
    assert tracking.release("a") == Released(id="a", released_bytes=3 * MB)
    assert (tracking.release("a").released_bytes, reported(ledger).components[0].owned_bytes) == (0, MB)


def test_what_is_tracked_leaves_less_for_the_others() -> None:
    """R-E10: it exists, so it is not refused; admission makes room for the rest, a step at a time, or refuses it."""
    cache = Pile("cache", {"low": 2 * MB})
    ledger, _ = ledger_of(cache, ceilings={"cache": 5 * MB})
    tracking = TrackedAllocations(ledger)
    tracking.track(told("a", 3 * MB))
    with ledger.reserve("cache", MB):
        assert cache.owned_bytes() == MB
    tracking.track(told("b", 4 * MB))
    with pytest.raises(NoRoom), ledger.reserve("cache", MB):
        pass


def test_an_id_told_again_replaces_what_was_told_before() -> None:
    """R-E10: memory that grew is told again; also under another component."""
    ledger, _ = ledger_of(Pile("cache"), ceilings={"working": 9 * MB})
    tracking = TrackedAllocations(ledger)
    for track in (told("a", MB), told("a", 2 * MB), told("b", MB), told("a", 3 * MB, "working")):
        tracking.track(track)
    assert (ledger.tracked_bytes("cache"), ledger.tracked_bytes("working")) == (MB, 3 * MB)
    listed = tracking.listing()
    assert ([one.id for one in listed.tracked], listed.tracked_bytes, listed.omitted) == (["a", "b"], 4 * MB, 0)


def test_a_refused_track_leaves_what_was_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-E10: an unknown component, and one id too many."""
    monkeypatch.setattr("membudget_runtime.tracking.TRACKED_AT_MOST", 1)
    ledger, _ = ledger_of(Pile("cache"), ceilings={})
    tracking = TrackedAllocations(ledger)
    tracking.track(told("a", MB))
    with pytest.raises(UnknownComponent):
        tracking.track(told("a", MB, "cash"))
    with pytest.raises(TooManyHeld):
        tracking.track(told("b", MB))
    assert (ledger.tracked_bytes(), [one.component for one in tracking.listing().tracked]) == (MB, ["cache"])


def test_a_component_that_only_the_plan_knew_may_be_registered_later() -> None:
    """R-E10: what was tracked in its name stays; a second one of the name is refused as before."""
    ledger, _ = ledger_of(ceilings={"cache": 9 * MB})
    TrackedAllocations(ledger).track(told("a", MB))
    assert ledger.components[0].evict(1, Priority.LOW, ledger.bounds.ranking).entries == 0
    ledger.register(Pile("cache", {"low": MB}))
    assert (reported(ledger).components[0].owned_bytes, len(ledger.components)) == (2 * MB, 1)
    with pytest.raises(ValueError, match="registered already"):
        ledger.register(Pile("cache"))
