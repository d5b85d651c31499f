"""What holds of the ladder in any history: random signals, limits, forecasts and results (R-S03, R-S06, R-P06)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.plan import EffectivePlan, Rung
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.entries import GONE_SECONDS
from membudget_sidecar.deciding.ladder import finished, initial_state, step
from membudget_sidecar.deciding.ladder_state import Decision, EntryKind, LadderState, Observation
from sidecar.driven_ladder import PLAN, POINT, rung_of, with_rung

NARROW = with_rung(
    "soft",
    with_rung(
        "hard",
        with_rung("emergency", release_percent=97, headroom_bytes=4 * POINT, seconds_to_limit=5),
        release_percent=92,
        headroom_bytes=12 * POINT,
    ),
    release_percent=79,
    seconds_to_limit=30,
)
"""Margins of one point, and distances to the limit in every combination."""

PLANS = pytest.mark.parametrize("plan", [PLAN, NARROW], ids=["built-in", "narrow and with distances"])


@dataclass(frozen=True)
class Moment:
    """A look, in permille or percent of the budget, and how an action ends that may be in flight before it."""

    eighths: int
    permille: int | None
    unmanaged: int | None
    limit: int | None
    seconds: float | None
    evictable: int | None
    ending: ActionStatus | None
    exhausted: bool


@dataclass(frozen=True)
class Event:
    """What one step made of a moment; `ended` is the action that ended just before."""

    look: Observation
    ended: tuple[Decision, ActionStatus, bool] | None
    before: LadderState
    after: LadderState
    decisions: tuple[Decision, ...]

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self.look.now


TOO_LITTLE = {ActionStatus.INEFFECTIVE, ActionStatus.FAILED}
ENDINGS = [status for status in ActionStatus if status not in {ActionStatus.QUEUED, ActionStatus.RUNNING}]
SIGNALS = st.none() | st.integers(0, 1200) | st.sampled_from([749, 750, 751, 799, 800, 879, 929, 930, 940, 979, 980])
MOMENTS = st.builds(
    Moment,
    eighths=st.integers(1, 100) | st.integers(1, 6000),
    permille=SIGNALS,
    unmanaged=st.none() | st.integers(0, 100),
    limit=st.none() | st.integers(80, 130),
    seconds=st.none() | st.floats(0, 100),
    evictable=st.none() | st.sampled_from([0, 0, 30]),
    ending=st.none() | st.sampled_from(ENDINGS),
    exhausted=st.booleans(),
)
HISTORIES = st.lists(MOMENTS, max_size=60)


def seen(moment: Moment, now: float) -> Observation:
    """The moment as a look."""

    def points(percent: int | None) -> int | None:
        return None if percent is None else percent * POINT

    return Observation(
        now=now,
        signal_bytes=None if moment.permille is None else moment.permille * PLAN.total_bytes // 1000,
        unmanaged_bytes=points(moment.unmanaged),
        limit_bytes=points(moment.limit),
        seconds_to_limit=moment.seconds,
        evictable_bytes=points(moment.evictable),
    )


def lived(
    history: list[Moment], plan: EffectivePlan, state: LadderState | None = None, now: float = 1000.0
) -> list[Event]:
    """The history as the ladder went through it, on a clock of exact eighths of a second."""
    events = list[Event]()
    state = initial_state() if state is None else state
    for moment in history:
        ended = None
        now += moment.eighths / 8
        if state.in_flight is not None and moment.ending is not None:
            ended = (state.in_flight, moment.ending, moment.exhausted)
            state = finished(state, *ended, now)
        before = state
        look = seen(moment, now)
        state, decisions = step(state, look, plan)
        events.append(Event(look, ended, before, state, decisions))
    return events


@PLANS
@given(history=HISTORIES)
def test_no_history_acts_on_an_unknown_signal(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-S03: None decides nothing and changes nothing, whatever came before."""
    for event in lived(history, plan):
        assert event.look.signal_bytes is not None or (event.decisions, event.after) == ((), event.before)


@PLANS
@given(history=HISTORIES)
def test_no_history_has_two_actions_at_once(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-S03: between two decisions the first one ends."""
    running: Decision | None = None
    for event in lived(history, plan):
        running = None if event.ended else running
        assert len(event.decisions) <= (running is None)
        running = event.decisions[0] if event.decisions else running
        assert running == event.after.in_flight


@PLANS
@given(history=HISTORIES)
def test_no_history_leaves_a_level_above_its_release(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-S03: a level is left only once each entry that held it is released, or its figure has been gone for long."""
    for event in lived(history, plan):
        level, signal = event.before.level, event.look.signal_bytes
        if event.after.level.rank < level.rank and signal is not None:
            gone = event.now - event.before.unreleased_at >= GONE_SECONDS
            for kind in event.before.held_by:
                assert released(kind, rung_of(plan, level), event.look, plan, gone=gone)


def released(kind: EntryKind, rung: Rung, look: Observation, plan: EffectivePlan, *, gone: bool) -> bool:
    """As a policy's author reads it, reckoned without the product's own figures."""
    signal, limit, seconds = look.signal_bytes or 0, look.limit_bytes, look.seconds_to_limit
    if kind is EntryKind.PERCENT:
        return signal < plan.total_bytes * rung.release_percent // 100
    if limit is None or (kind is EntryKind.SECONDS_TO_LIMIT and seconds is None):
        return gone
    if kind is EntryKind.HEADROOM:
        return limit - signal > (rung.headroom_bytes or 0) + (rung.percent - rung.release_percent) * POINT
    return (seconds or 0) > 2 * (rung.seconds_to_limit or 0)


@PLANS
@given(history=HISTORIES)
def test_no_history_enters_a_level_without_a_reason(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-P06: a rise means that the percent, the headroom or the seconds of that very rung are reached."""
    for event in lived(history, plan):
        if event.after.level.rank > event.before.level.rank:
            rung, look = rung_of(plan, event.after.level), event.look
            signal, limit = look.signal_bytes or 0, look.limit_bytes
            reached = signal >= plan.total_bytes * rung.percent // 100
            if limit is not None and rung.headroom_bytes is not None:
                reached |= limit - signal <= rung.headroom_bytes
            if limit is not None and look.seconds_to_limit is not None and rung.seconds_to_limit is not None:
                reached |= look.seconds_to_limit <= rung.seconds_to_limit
            assert reached


@PLANS
@given(history=HISTORIES)
def test_no_history_acts_within_a_cool_down(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-S03: an action that is no escalation keeps the pause of its rung and of its last result."""
    least = {ActionStatus.UNVERIFIED: 1, ActionStatus.OBSERVED: 10}
    ready: dict[Level, float] = {}
    for event in lived(history, plan):
        if event.ended and event.ended[0].kind is not ActionKind.COLLECT:
            decision, status, _ = event.ended
            pause = max(rung_of(plan, decision.level).cooldown_seconds, least.get(status, 0))
            ready[decision.level] = event.now + pause
        for decision in event.decisions:
            free_to_act = decision.kind is ActionKind.COLLECT or event.before.escalated_to is not None
            assert free_to_act or event.now >= ready.get(decision.level, 0)


@PLANS
@given(history=HISTORIES)
def test_no_history_repeats_at_once_what_changed_nothing(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-S06: a kind that freed too little, or that failed, comes again ten seconds later at the earliest."""
    ready: dict[ActionKind, float] = {}
    for event in lived(history, plan):
        if event.ended and event.ended[1] in TOO_LITTLE:
            ready[event.ended[0].kind] = event.now + 10
        for decision in event.decisions:
            assert event.now >= ready.get(decision.kind, 0)


@PLANS
@given(history=HISTORIES)
def test_no_history_collects_garbage_within_its_cool_down(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-P06: sixty seconds between two collects, whatever crosses or grows."""
    ready = 0.0
    for event in lived(history, plan):
        if event.ended and event.ended[0].kind is ActionKind.COLLECT:
            ready = event.now + 60
        assert event.now >= ready or ActionKind.COLLECT not in {decision.kind for decision in event.decisions}


@PLANS
@given(history=HISTORIES)
def test_no_history_acts_while_nothing_is_left(plan: EffectivePlan, history: list[Moment]) -> None:
    """R-S06: ten seconds without a rung after the top one freed too little or ran out, a minute with nothing left."""
    ended_at = -1000.0
    for event in lived(history, plan):
        if event.ended and event.ended[0].kind is not ActionKind.COLLECT:
            decision, status, exhausted = event.ended
            if decision.level is Level.EMERGENCY:
                ended_at = event.now if exhausted or status in TOO_LITTLE else -1000.0
            else:
                ended_at = -1000.0
        silent_until = ended_at + (60 if event.look.evictable_bytes == 0 else 10)
        acting = {decision.kind for decision in event.decisions} - {ActionKind.COLLECT}
        assert event.now >= silent_until or not acting


@PLANS
@given(history=HISTORIES)
def test_no_history_uses_a_kind_that_is_backed_off_but_in_an_emergency(
    plan: EffectivePlan, history: list[Moment]
) -> None:
    """R-S06: a minute at least after harm, unless the emergency's own entry holds."""
    resting: dict[ActionKind, float] = {}
    for event in lived(history, plan):
        if event.ended and event.ended[1] is ActionStatus.HARMFUL:
            resting[event.ended[0].kind] = event.now + 60
        for decision in event.decisions:
            rests = decision.kind is not ActionKind.COLLECT and event.now < resting.get(decision.kind, 0)
            assert not rests or event.after.level is Level.EMERGENCY


@PLANS
@given(history=HISTORIES)
def test_every_action_asks_for_at_least_its_share_and_names_its_cause(
    plan: EffectivePlan, history: list[Moment]
) -> None:
    """R-P06: freePercent is a least amount, and the acting rung was reached or escalated to."""
    for event in lived(history, plan):
        for decision in event.decisions:
            assert decision.observation == event.look
            assert decision.cause
            if decision.kind is not ActionKind.COLLECT:
                assert decision.bytes_to_free >= plan.percent_bytes(rung_of(plan, decision.level).free_percent)
                assert decision.level.rank <= event.after.level.rank or event.before.escalated_to is not None


@PLANS
@given(history=HISTORIES, look=MOMENTS, one=st.integers(0, 1200), other=st.integers(0, 1200))
def test_a_higher_signal_never_gives_a_lower_level(
    plan: EffectivePlan, history: list[Moment], look: Moment, one: int, other: int
) -> None:
    """R-S03: of the same state, limit and forecast, the level follows the signal."""
    events = lived(history, plan)
    state, now = (events[-1].after, events[-1].now) if events else (initial_state(), 1000.0)
    low, high = (
        step(state, seen(replace(look, permille=permille), now + look.eighths), plan)[0].level.rank
        for permille in sorted((one, other))
    )
    assert low <= high


@PLANS
@given(history=HISTORIES, cut=st.integers(0, 60))
def test_a_recorded_history_replays_to_the_same_decisions(plan: EffectivePlan, history: list[Moment], cut: int) -> None:
    """R-S03: pure: again from the start, and from any state in between, everything comes as it came."""
    events = lived(history, plan)
    assert events == lived(history, plan)
    state, now = (events[cut - 1].after, events[cut - 1].now) if 0 < cut <= len(events) else (None, 1000.0)
    rest = cut if state is not None else 0
    assert events[rest:] == lived(history[rest:], plan, state, now)
