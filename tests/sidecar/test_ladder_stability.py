"""Usage that swings around a threshold is one stay, not many: hours of simulated time, at the loop's pace (R-S03)."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membudget_contract.plan import EffectivePlan
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.trend import CONFIDENT, Forecast, Trend
from sidecar.driven_ladder import POINT, WITHOUT_COLLECT, Ladder, with_rung

ENTRIES = {"soft": 80, "hard": 93, "emergency": 98}
LIMIT = 120


def narrow(name: str, *, by_headroom: bool) -> EffectivePlan:
    """One rung with a margin of one point; entered by its percent, or at the same signal by its headroom."""
    if not by_headroom:
        return with_rung(name, WITHOUT_COLLECT, release_percent=ENTRIES[name] - 1)
    headroom = (LIMIT - ENTRIES[name]) * POINT
    return with_rung(name, WITHOUT_COLLECT, percent=200, release_percent=199, headroom_bytes=headroom)


def swing(centre: float, period: float, seconds: float, every: float, noise: random.Random) -> Iterator[float]:
    """Four points up and down around `centre`, with a point of noise."""
    for number in range(int(seconds / every)):
        yield centre + 4 * math.sin(2 * math.pi * number * every / period) + noise.uniform(-0.99, 0.99)


def transition_times(ladder: Ladder, signal: Iterator[float], every: float) -> list[float]:
    """When the level changed; each action ends effective at once, and the load grows back."""
    times = list[float]()
    for points in signal:
        before = ladder.state.transitions
        ladder.see(points, after=every, limit=LIMIT)
        times += [ladder.now] * (ladder.state.transitions - before)
        if ladder.state.in_flight is not None:
            ladder.end(ActionStatus.EFFECTIVE, after=0)
    return times


def assert_at_most_one_in_five_minutes_after_the_first(times: list[float]) -> None:
    """The k-th after the first comes 5 k minutes after it at the earliest."""
    for number, time in enumerate(times):
        assert time - times[0] >= 300 * number


@pytest.mark.parametrize("by_headroom", [False, True], ids=["percent", "headroom"])
@pytest.mark.parametrize("name", list(ENTRIES))
@settings(max_examples=3, deadline=None)
@given(period=st.floats(0.5, 600), seed=st.integers(0, 1000))
def test_ten_minutes_of_swing_around_a_narrow_threshold(name: str, by_headroom: bool, period: float, seed: int) -> None:
    """R-S03: the release one point under the entry, ten looks a second."""
    ladder = Ladder(plan=narrow(name, by_headroom=by_headroom))
    ladder.see(ENTRIES[name] - 4.99)
    signal = swing(ENTRIES[name], period, 600, 0.1, random.Random(seed))
    assert_at_most_one_in_five_minutes_after_the_first(transition_times(ladder, own_levels(signal, name), 0.1))


def own_levels(signal: Iterator[float], name: str) -> Iterator[float]:
    """Kept below the next rung, whose transitions are its own."""
    ceiling = {"soft": 92.9, "hard": 97.9, "emergency": 200.0}[name]
    return (min(points, ceiling) for points in signal)


@pytest.mark.parametrize("name", list(ENTRIES))
@settings(max_examples=2, deadline=None)
@given(period=st.floats(300, 4000), offset=st.floats(-4, 4), seed=st.integers(0, 1000))
def test_six_hours_of_slow_swing_around_a_narrow_threshold(name: str, period: float, offset: float, seed: int) -> None:
    """R-S03: so slow that the signal stays under the release for many minutes."""
    ladder = Ladder(plan=narrow(name, by_headroom=False))
    ladder.see(ENTRIES[name] - 4.99)
    # Two points up and down, so that none of it leaves the swing for which the promise holds.
    centre = ENTRIES[name] + offset / 2
    signal = (centre + (points - centre) / 2 for points in swing(centre, period, 21_600, 2.0, random.Random(seed)))
    assert_at_most_one_in_five_minutes_after_the_first(transition_times(ladder, own_levels(signal, name), 2.0))


@pytest.mark.parametrize("period", [7.0, 20.0, 61.0, 180.0])
def test_a_swing_makes_no_row_of_transitions_through_its_forecast(period: float) -> None:
    """R-S13: the real trend over the same swing; a first rise may look like a ramp to it, once."""
    plan = WITHOUT_COLLECT
    for name in ENTRIES:
        plan = with_rung(name, plan, seconds_to_limit={"soft": 30, "hard": 20, "emergency": 10}[name])
    ladder, trend = Ladder(plan=plan), Trend()
    for points in swing(80, period, 600, 0.5, random.Random(1)):
        trend.record(ladder.now, int(points * POINT))
        forecast = trend.seconds_to(100 * POINT)
        seconds = None
        if isinstance(forecast, Forecast) and forecast.confidence >= CONFIDENT:
            seconds = forecast.seconds
        ladder.see(points, after=0.5, limit=100, seconds=seconds)
        if ladder.state.in_flight is not None:
            ladder.end(ActionStatus.EFFECTIVE, after=0)
    assert ladder.state.transitions <= 3


@pytest.mark.parametrize("release", [75, 79])
def test_ten_minutes_between_79_and_81_percent_act_once_per_cool_down(release: int) -> None:
    """Fault 44: a sine of 20 s, ten looks a second, every action effective and of no lasting help."""
    ladder, times = Ladder(plan=with_rung("soft", release_percent=release)), list[float]()
    for tick in range(6000):
        for decision in ladder.see(80 + math.sin(2 * math.pi * tick / 200), after=0.1):
            times += [ladder.now] if decision.kind is ActionKind.CLEANUP else []
            ladder.end(ActionStatus.EFFECTIVE, after=0)
    assert ladder.state.transitions == 1
    assert 30 <= len(times) <= 60
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 10


def test_within_the_swing_a_level_is_kept_ten_minutes_and_does_not_act() -> None:
    """R-S03: released one point under its entry it keeps its name; what stands under a release asks for nothing."""
    ladder = Ladder(plan=narrow("soft", by_headroom=False))
    ladder.see(81)
    ladder.end(ActionStatus.EFFECTIVE)
    for _ in range(599):
        assert ladder.see(77, after=1) == ()
        assert ladder.state.level is Level.SOFT
    ladder.see(77, after=2)
    assert ladder.state.level is Level.NORMAL


def test_a_clear_fall_leaves_at_once_and_a_rise_enters_at_once() -> None:
    """R-S03: what is held back is a transition within the swing, never an alarm."""
    ladder = Ladder(plan=narrow("soft", by_headroom=False))
    levels = list[Level]()
    for points in (81, 74, 81, 94, 99, 60):
        ladder.see(points)
        levels.append(ladder.state.level)
    assert levels == [Level.SOFT, Level.NORMAL, Level.SOFT, Level.HARD, Level.EMERGENCY, Level.NORMAL]
