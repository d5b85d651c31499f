"""A rung, and garbage collection, are entered as well by their distances to the container's limit (R-P06, R-S13)."""

from __future__ import annotations

import pytest

from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.entries import GONE_SECONDS, STEADY_SECONDS
from membudget_sidecar.deciding.ladder import initial_state
from sidecar.driven_ladder import CLEANUP, EVICT, POINT, SPILL, WITHOUT_COLLECT, Ladder, with_rung

CLOSE = with_rung("emergency", WITHOUT_COLLECT, headroom_bytes=20 * POINT)
"""Left beyond 24 points: the rung's margin is four."""
FORESEEING = with_rung("hard", WITHOUT_COLLECT, seconds_to_limit=10)
COLLECT = [(ActionKind.COLLECT, Level.NORMAL)]


@pytest.mark.parametrize(
    ("points", "limit", "acts"),
    [
        (60, 81, []),
        (60, 80, [EVICT]),
        (60, 70, [EVICT]),
        (60, None, []),
        (None, 70, []),
        (85, None, [CLEANUP]),
    ],
)
def test_a_rung_is_entered_within_its_headroom(
    points: int | None, limit: int | None, acts: list[tuple[ActionKind, Level]]
) -> None:
    """R-P06: at the very headroom, also far below the percent; an unknown limit or signal says nothing."""
    ladder = Ladder(plan=CLOSE)
    assert acts == [(decision.kind, decision.level) for decision in ladder.see(points, limit=limit)]


@pytest.mark.parametrize(
    ("seconds", "limit", "acts"),
    [
        (10.1, 100, []),
        (10.0, 100, [SPILL]),
        (0.0, 100, [(ActionKind.EVICT, Level.HARD)]),
        (None, 100, []),
        (5.0, None, []),
    ],
)
def test_a_rung_is_entered_within_its_seconds_to_the_limit(
    seconds: float | None, limit: int | None, acts: list[tuple[ActionKind, Level]]
) -> None:
    """R-S13: by the forecast alone; without one, or without a limit, it says nothing."""
    assert acts == Ladder(plan=FORESEEING).acts(50, limit=limit, seconds=seconds)


def test_the_headroom_is_left_beyond_it_and_the_rungs_own_margin() -> None:
    """R-P06: entered 20 points from the limit, it acts up to 24; five points away it is left at once."""
    ladder = Ladder(plan=CLOSE)
    ladder.see(60, limit=80)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(56, limit=80) == [EVICT]
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(55.5, limit=80) == []
    assert ladder.state.level is Level.EMERGENCY
    ladder.see(54.9, limit=80)
    assert ladder.state.level is Level.NORMAL


def test_a_rung_entered_by_its_headroom_is_not_held_by_its_percent() -> None:
    """R-P06: inside the percent's hysteresis, whose entry was never reached."""
    ladder = Ladder(plan=CLOSE)
    ladder.see(96, limit=116)
    assert ladder.state.level is Level.EMERGENCY
    ladder.end(ActionStatus.EFFECTIVE)
    ladder.see(96, limit=130)
    assert ladder.state.level is Level.HARD


def test_a_rung_kept_in_name_leaves_the_acting_to_the_one_below() -> None:
    """R-P06: the headroom that entered it is released and not settled; its percent was never reached."""
    ladder = Ladder(plan=CLOSE)
    ladder.see(96, limit=116)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(96, limit=121) == [SPILL]
    assert ladder.state.level is Level.EMERGENCY


def test_a_limit_lowered_in_place_acts_at_once() -> None:
    """R-P06: the container's limit comes to the signal instead of the other way round."""
    ladder = Ladder(plan=CLOSE)
    assert ladder.acts(70, limit=100) == []
    assert ladder.acts(70, limit=85) == [EVICT]


def test_the_forecast_is_released_at_twice_the_seconds_and_left_after_a_while() -> None:
    """R-S13: entered at ten, it acts up to twenty, and half a minute beyond that the level ends."""
    ladder = Ladder(plan=FORESEEING)
    ladder.see(50, limit=100, seconds=9)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(50, after=10, limit=100, seconds=20) == [SPILL]
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(50, after=GONE_SECONDS - 1, limit=100, seconds=20.1) == []
    assert ladder.state.level is Level.HARD
    assert ladder.acts(50, after=1, limit=100, seconds=20.1) == []
    assert ladder.state.level is Level.NORMAL


@pytest.mark.parametrize("limit", [100, None])
def test_a_level_outlives_its_forecast_for_a_while_without_acting(limit: int | None) -> None:
    """R-S13: unknown triggers nothing and ends nothing at once: for half a minute the level stays."""
    ladder = Ladder(plan=FORESEEING)
    ladder.see(50, limit=100, seconds=9)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(50, after=GONE_SECONDS - 1, limit=limit) == []
    assert ladder.state.level is Level.HARD
    assert ladder.acts(50, after=2, limit=limit) == []
    assert ladder.state.level is Level.NORMAL


def test_an_unknown_limit_keeps_the_level_of_a_headroom_for_a_while() -> None:
    """R-P06: a file that cannot be read for a moment ends no emergency, and evicts nothing."""
    ladder = Ladder(plan=CLOSE)
    ladder.see(60, limit=75)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(60, after=GONE_SECONDS - 1, limit=None) == []
    assert ladder.state.level is Level.EMERGENCY
    assert ladder.acts(60, limit=75) == [EVICT]


@pytest.mark.parametrize(
    ("points", "limit", "asked", "goal"),
    [
        (60, 80, 15, 56),  # one point under 56 is five away, less than the rung's fifteen
        (60, 70, 15, 46),  # exactly fifteen
        (60, 62, 23, 38),
        (99, 100, 24, 76),  # the headroom asks for more than the percent's release of 94
        (99, 130, 15, 94),
    ],
)
def test_the_entry_that_asks_most_says_how_much(points: int, limit: int, asked: int, goal: int) -> None:
    """R-P06: one point under the release of the entry that is furthest from it."""
    (decision,) = Ladder(plan=CLOSE).see(points, limit=limit)
    assert (asked * POINT, goal * POINT) == (decision.bytes_to_free, decision.goal_bytes)


def test_a_forecast_asks_for_what_brings_twice_its_seconds() -> None:
    """R-S13: 40 points in 8 s are 5 a second: for 20 s it takes 100 points, which is all there is."""
    (decision,) = Ladder(plan=FORESEEING).see(60, limit=100, seconds=8)
    assert (60 * POINT, 0) == (decision.bytes_to_free, decision.goal_bytes)
    (decision,) = Ladder(plan=FORESEEING).see(80, limit=100, seconds=10)
    assert (80 - 59, 60) == (decision.bytes_to_free // POINT, decision.goal_bytes // POINT)


def test_a_forecast_of_no_time_at_all_counts_as_one_second() -> None:
    """R-S13: no growth is infinite."""
    (decision,) = Ladder(plan=FORESEEING).see(99, limit=100, seconds=0.0)
    assert (ActionKind.EVICT, 99 - 93) == (decision.kind, (decision.bytes_to_free - 9 * POINT) // POINT)
    (decision,) = Ladder(plan=FORESEEING).see(90, limit=91, seconds=0.0)
    assert (Level.HARD, 90 - 70) == (decision.level, decision.bytes_to_free // POINT)


@pytest.mark.parametrize(
    ("points", "limit", "seconds", "cause"),
    [
        (60, 75, None, "signal 60.0 MiB is 15.0 MiB from the limit, emergency keeps a headroom of 20.0 MiB"),
        (99, 130, None, "signal 99.0 MiB is over the emergency entry of 98.0 MiB"),
        (50, 100, 7.4, "the trend meets the limit of 100.0 MiB in 7 s, hard acts from 10 s on"),
    ],
)
def test_the_cause_names_the_entry(points: int, limit: int, seconds: float | None, cause: str) -> None:
    """R-P06: which of the three it was."""
    plan = with_rung("hard", CLOSE, seconds_to_limit=10)
    (decision,) = Ladder(plan=plan).see(points, limit=limit, seconds=seconds)
    assert cause == decision.cause


def test_garbage_is_collected_when_a_distance_is_crossed() -> None:
    """R-P06: upward only: once, and again after it was left and the cool-down is over."""
    plan = with_rung("collect", headroom_bytes=20 * POINT, seconds_to_limit=30)
    ladder = Ladder(plan=plan, state=initial_state())
    assert ladder.acts(50, limit=71) == []
    assert ladder.acts(50, limit=70) == COLLECT
    ladder.end(ActionStatus.DONE)
    assert ladder.acts(50, after=120, limit=70) == []
    assert ladder.acts(50, limit=71) == []
    (decision,) = ladder.see(50, limit=71, seconds=30.0)
    assert "the trend meets the limit of 71.0 MiB in 30 s, collect acts from 30 s on" == decision.cause


def test_a_percent_that_has_settled_for_long_leaves_the_distance_to_itself() -> None:
    """R-P06: each entry is left by its own figures."""
    plan = with_rung("soft", WITHOUT_COLLECT, release_percent=79, headroom_bytes=30 * POINT)
    ladder = Ladder(plan=plan)
    ladder.see(81, limit=110)
    ladder.end(ActionStatus.EFFECTIVE)
    ladder.see(78, limit=150)
    assert ladder.state.level is Level.SOFT
    ladder.see(78, after=STEADY_SECONDS, limit=150)
    assert ladder.state.level is Level.NORMAL


def test_where_the_limit_is_met_before_a_spill_could_end_values_are_dropped() -> None:
    """R-S06, R-S13: writing to disk takes seconds; a kill would drop all of them."""
    ladder = Ladder()
    (decision,) = ladder.see(94, limit=120, seconds=4.9)
    assert (ActionKind.EVICT, Level.HARD) == (decision.kind, decision.level)
    assert decision.cause.startswith("the limit is too near to write to disk; ")
    for seconds in (5.0, None):
        assert [SPILL] == Ladder().acts(94, limit=120, seconds=seconds)
