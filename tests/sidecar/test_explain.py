"""The ladder says in words why it acts or does not, and its words agree with what it does (R-S03, R-S06)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.explanation import Explanation, RungExplanation
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.explain import explain
from membudget_sidecar.deciding.ladder import finished, initial_state, step
from sidecar.driven_ladder import PLAN, POINT, WITHOUT_COLLECT, Ladder, with_rung
from sidecar.test_ladder_properties import HISTORIES, MOMENTS, NARROW, Moment, lived, seen

HALVED = msgspec.structs.replace(PLAN, total_bytes=50 * POINT)


def explained(ladder: Ladder, points: float | None, *, after: float = 0.125, **figures: Any) -> Explanation:
    """The ladder looks, and is asked at once."""
    ladder.see(points, after=after, **figures)
    return explain(ladder.state, ladder.look(points, **figures), ladder.plan)


def rung(explanation: Explanation, level: Level) -> RungExplanation:
    """What is said of one."""
    return next(rung for rung in explanation.rungs if rung.level is level)


def test_every_rung_is_told_with_its_figures() -> None:
    """R-S03: entry and release in bytes, each distance, and what was compared."""
    plan = with_rung("emergency", WITHOUT_COLLECT, headroom_bytes=20 * POINT, seconds_to_limit=10)
    told = explained(Ladder(plan=plan), 60, limit=100, seconds=25.0, evictable=30)
    emergency = rung(told, Level.EMERGENCY)
    assert [
        ("percent", 98 * POINT, 94 * POINT, False),
        ("headroom", 80 * POINT, 76 * POINT, False),
        ("secondsToLimit", None, 68 * POINT, False),
    ] == [(by.by, by.entry_bytes, by.release_bytes, by.entered) for by in emergency.distances]
    assert "signal 60.0 MiB is 40.0 MiB from the limit, emergency keeps a headroom of 20.0 MiB" == (
        emergency.distances[1].reason
    )
    assert (60 * POINT, 100 * POINT, 25.0, 30 * POINT) == (
        told.signal_bytes,
        told.limit_bytes,
        told.seconds_to_limit,
        told.evictable_bytes,
    )


def test_distances_without_a_limit_say_nothing() -> None:
    """R-P06: and the explanation says that."""
    plan = with_rung("emergency", WITHOUT_COLLECT, headroom_bytes=20 * POINT)
    emergency = rung(explained(Ladder(plan=plan), 60), Level.EMERGENCY)
    assert ["limit or forecast is unknown, and that says nothing"] == [by.reason for by in emergency.distances[1:]]
    assert "no limit is known that it could be too close to" in emergency.reason


def test_below_every_entry_there_is_nothing_to_do() -> None:
    """R-S03: the calm case is one sentence."""
    told = explained(Ladder(plan=WITHOUT_COLLECT), 60)
    assert "signal 60.0 MiB is under its entry of 80.0 MiB" == rung(told, Level.SOFT).reason
    assert (Level.NORMAL, None) == (told.ruling, told.in_flight)
    assert told.reason.startswith("nothing to do")


def test_what_acts_says_why() -> None:
    """R-S03: the cause of the decision itself; the rungs below and above say why not they."""
    told = explained(Ladder(plan=WITHOUT_COLLECT), 94)
    assert [False, True, False] == [rung.acts for rung in told.rungs]
    assert "acts now: signal 94.0 MiB is over the hard entry of 93.0 MiB" == rung(told, Level.HARD).reason
    assert "Hard stands above it and acts in its place" == rung(told, Level.SOFT).reason
    assert "Spill: signal 94.0 MiB is over the hard entry of 93.0 MiB" == told.reason


def test_an_action_in_flight_is_waited_for() -> None:
    """R-S03: one at a time."""
    ladder = Ladder(plan=WITHOUT_COLLECT)
    ladder.see(85)
    told = explained(ladder, 86)
    assert ActionKind.CLEANUP == told.in_flight
    assert "Cleanup is in work: signal 85.0 MiB is over the soft entry of 80.0 MiB" == rung(told, Level.SOFT).reason


def test_a_cool_down_names_the_last_result_and_what_is_left() -> None:
    """R-S03: seconds until it may act again."""
    ladder = Ladder(plan=WITHOUT_COLLECT)
    ladder.see(85)
    ladder.end(ActionStatus.EFFECTIVE)
    soft = rung(explained(ladder, 85, after=4), Level.SOFT)
    assert ("its last action ended Effective 4.0 s ago and its cool-down is not over", 6.0) == (
        soft.reason,
        soft.waits_seconds,
    )


def test_exhaustion_and_only_critical_left_are_told_apart() -> None:
    """R-S06: nothing left for now, and nothing left that may go."""
    ladder = Ladder(plan=WITHOUT_COLLECT)
    ladder.see(99)
    ladder.end(ActionStatus.INEFFECTIVE)
    told = explained(ladder, 99, after=4)
    assert (False, 6.0) == (told.only_critical_left, rung(told, Level.EMERGENCY).waits_seconds)
    assert rung(told, Level.EMERGENCY).reason.startswith("nothing was left, so Evict would free nothing")
    told = explained(ladder, 99, after=1, evictable=0)
    assert (True, 55.0) == (told.only_critical_left, rung(told, Level.EMERGENCY).waits_seconds)
    assert "(OnlyCriticalLeft)" in told.reason


def test_harm_is_named_as_the_reason_to_rest() -> None:
    """R-S06: a backed-off kind, and how long."""
    ladder = Ladder(plan=WITHOUT_COLLECT)
    (decision,) = ladder.see(85)
    ladder.end(ActionStatus.EFFECTIVE)
    ladder.state = finished(ladder.state, decision, ActionStatus.HARMFUL, exhausted=False, now=ladder.now)
    soft = rung(explained(ladder, 85, after=20), Level.SOFT)
    assert ("Cleanup did harm the last time and is backed off from", 40.0) == (soft.reason, soft.waits_seconds)


def test_a_level_kept_in_name_says_that_it_does_not_act() -> None:
    """R-S03: released, and not settled yet."""
    ladder = Ladder(plan=with_rung("soft", WITHOUT_COLLECT, release_percent=79))
    ladder.see(81)
    ladder.end(ActionStatus.EFFECTIVE)
    told = explained(ladder, 77, after=20)
    assert (Level.SOFT, Level.NORMAL) == (told.level, told.ruling)
    assert rung(told, Level.SOFT).reason.startswith("under its release, so it does not act; the level is kept")


def test_an_unknown_signal_is_said_to_decide_nothing() -> None:
    """R-S03: by every rung, by garbage collection and by the whole."""
    told = explained(Ladder(), None)
    assert {"the signal is unknown, and nothing is decided on that"} == {
        told.reason,
        told.collect.reason,
        *(rung.reason for rung in told.rungs),
    }


def test_observe_mode_says_that_it_only_records() -> None:
    """R-P12: what would be done, and that it is not."""
    told = explained(Ladder(plan=msgspec.structs.replace(WITHOUT_COLLECT, mode=Mode.OBSERVE)), 99)
    assert "Evict (Observe: recorded, not done): signal 99.0 MiB is over the emergency entry of 98.0 MiB" == told.reason


def test_a_passage_says_whose_thresholds_hold() -> None:
    """R-P03: after a lower budget the old entries, for so many seconds at most."""
    ladder = Ladder()
    ladder.see(60)
    ladder.follow(HALVED)
    told = explained(ladder, 60, after=4)
    assert (6.0, 80 * POINT) == (told.passage_seconds, rung(told, Level.SOFT).distances[0].entry_bytes)


@pytest.mark.parametrize(
    ("points", "collected", "reason"),
    [
        (70, False, "signal 70.0 MiB is under its entry of 75.0 MiB"),
        (76, False, "acts now: signal 76.0 MiB is over the collect entry of 75.0 MiB"),
        (77, True, "collected since its entry was crossed, and unmanaged bytes have not grown by 5 points since"),
    ],
)
def test_garbage_collection_is_explained_as_well(points: int, collected: bool, reason: str) -> None:
    """R-P06: it is no rung, and has reasons of its own."""
    ladder = Ladder(state=initial_state())
    if collected:
        ladder.see(76)
        ladder.end(ActionStatus.DONE)
    assert reason == explained(ladder, points).collect.reason


def test_a_collect_beside_a_resting_rung_is_not_taken_for_the_rung() -> None:
    """R-P06: at the soft level, in its cool-down, garbage is collected."""
    ladder = Ladder(state=initial_state())
    ladder.see(81)
    ladder.end(ActionStatus.EFFECTIVE)
    told = explained(ladder, 81)
    assert (True, False) == (told.collect.acts, rung(told, Level.SOFT).acts)


@given(HISTORIES, MOMENTS, st.sampled_from([PLAN, NARROW]))
def test_what_is_explained_is_what_is_done(history: list[Moment], moment: Moment, plan: Any) -> None:
    """R-S03: in any state and at any look: the rung that is said to act is the one that does, asked before or after."""
    events = lived(history, plan)
    state, now = (events[-1].after, events[-1].now) if events else (initial_state(), 1000.0)
    look = seen(moment, now + moment.eighths / 8)
    after, decisions = step(state, look, plan)
    acting = [(decision.kind, decision.level) for decision in decisions]
    for told in (explain(state, look, plan), explain(after, look, plan)):
        said = [(rung.action, rung.level) for rung in told.rungs if rung.acts]
        said += [(ActionKind.COLLECT, told.level)] if told.collect.acts else []
        assert acting == said
        assert after.level == told.level
        assert all(rung.reason for rung in told.rungs)
