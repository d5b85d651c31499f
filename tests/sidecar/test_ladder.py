"""The ladder decides what to do about a signal: scenario tables first, properties on random histories after them."""

# asserts read expected == actual

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_contract.compile import compile_policy
from membudget_contract.plan import EffectivePlan, Rung
from membudget_contract.policy import Mode, Signal
from membudget_contract.policy_thresholds import RungAction
from membudget_contract.quantities import MIB
from membudget_contract.resolve import resolve
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.ladder import (
    Decision,
    LadderState,
    Observation,
    finished,
    initial_state,
    plan_changed,
    step,
)

POINT = MIB
"""One percent of PLAN's total, so that the figures of the tests read as percents."""

PLAN = resolve(compile_policy(None), environment={"MEMBUDGET_TOTAL": "100Mi"}, limit=None)
HALVED = msgspec.structs.replace(PLAN, total_bytes=50 * POINT)
DOUBLED = msgspec.structs.replace(PLAN, total_bytes=200 * POINT)


def with_rung(name: str, **changes: object) -> EffectivePlan:
    """PLAN with some fields of one rung changed."""
    rung = msgspec.structs.replace(getattr(PLAN.thresholds, name), **changes)
    return msgspec.structs.replace(PLAN, thresholds=msgspec.structs.replace(PLAN.thresholds, **{name: rung}))


def rung_of(plan: EffectivePlan, level: Level) -> Rung:
    """The rule of a level."""
    thresholds = plan.thresholds
    return {Level.SOFT: thresholds.soft, Level.HARD: thresholds.hard, Level.EMERGENCY: thresholds.emergency}[level]


@dataclass
class Ladder:
    """A ladder with a clock of its own; without garbage to collect unless a test asks for it."""

    plan: EffectivePlan = PLAN
    state: LadderState = field(default_factory=lambda: LadderState(collect_armed=False, unmanaged_low_bytes=0))
    now: float = 1000.0

    def see(self, points: float | None, *, after: float = 0.125, unmanaged: int | None = None) -> tuple[Decision, ...]:
        """What is decided when the signal is at `points` percent of PLAN's total."""
        self.now += after
        signal = None if points is None else int(points * POINT)
        look = Observation(self.now, signal, None if unmanaged is None else unmanaged * POINT)
        self.state, decisions = step(self.state, look, self.plan)
        return decisions

    def end(self, status: ActionStatus, *, exhausted: bool = False, after: float = 0.125) -> None:
        """The action in flight ends."""
        self.now += after
        assert self.state.in_flight is not None
        self.state = finished(self.state, self.state.in_flight, status, exhausted, self.now)

    def follow(self, plan: EffectivePlan) -> None:
        """A new plan arrives."""
        self.state = plan_changed(self.state, self.plan, plan, self.now)
        self.plan = plan

    def acts(self, points: float, *, after: float = 0.125) -> list[tuple[ActionKind, Level]]:
        """Kind and rung of what is decided at `points`."""
        return [(decision.kind, decision.level) for decision in self.see(points, after=after)]


CLEANUP = (ActionKind.CLEANUP, Level.SOFT)
SPILL = (ActionKind.SPILL, Level.HARD)
EVICT = (ActionKind.EVICT, Level.EMERGENCY)


@pytest.mark.parametrize(
    ("before", "points", "after"),
    [
        (Level.NORMAL, 79.9, Level.NORMAL),
        (Level.NORMAL, 80, Level.SOFT),
        (Level.NORMAL, 92.9, Level.SOFT),
        (Level.NORMAL, 93, Level.HARD),
        (Level.NORMAL, 98, Level.EMERGENCY),
        (Level.SOFT, 75, Level.SOFT),
        (Level.SOFT, 74.9, Level.NORMAL),
        (Level.SOFT, 92.9, Level.SOFT),
        (Level.HARD, 88, Level.HARD),
        (Level.HARD, 87.9, Level.SOFT),
        (Level.HARD, 74.9, Level.NORMAL),
        (Level.EMERGENCY, 94, Level.EMERGENCY),
        (Level.EMERGENCY, 93.9, Level.HARD),
        (Level.EMERGENCY, 88, Level.HARD),
        (Level.EMERGENCY, 87.9, Level.SOFT),
        (Level.EMERGENCY, 75, Level.SOFT),
        (Level.EMERGENCY, 74.9, Level.NORMAL),
    ],
)
def test_a_level_is_entered_at_its_entry_and_left_below_its_release(before: Level, points: float, after: Level) -> None:
    """R-S03: hysteresis, from every level, at the figures of the built-in thresholds."""
    ladder = Ladder(state=LadderState(level=before, collect_armed=False))
    ladder.see(points)
    assert ladder.state.level == after
    assert ladder.state.transitions == int(before is not after)


def test_a_jump_to_emergency_evicts_at_once() -> None:
    """R-S03: the highest level goes first; Cleanup and Spill are not walked through."""
    assert Ladder().acts(99) == [EVICT]


@pytest.mark.parametrize(("name", "points"), [("soft", 81), ("hard", 94), ("emergency", 99)])
@pytest.mark.parametrize("action", list(RungAction))
def test_every_action_of_a_policy_is_done_under_its_own_name(name: str, points: int, action: RungAction) -> None:
    """R-P06: no rung's action is without meaning, and none is taken for another."""
    (decision,) = Ladder(plan=with_rung(name, action=action)).see(points)
    assert decision.kind.value == action.value


@pytest.mark.parametrize(
    ("points", "asked"),
    [
        (80, 6),  # one point under 75 is 6 away, more than 5 percent
        (92, 18),
        (93, 10),  # one point under 88 is only 6 away
        (97, 10),
        (98, 15),
        (120, 27),
    ],
)
def test_an_action_asks_for_its_share_or_for_the_way_below_release(points: int, asked: int) -> None:
    """R-P06: the larger of freePercent and what brings the signal one point under the release figure."""
    (decision,) = Ladder().see(points)
    assert decision.bytes_to_free == asked * POINT


@pytest.mark.parametrize(
    ("points", "then", "goals"),
    [(81, 81, [75, 75, 75]), (94, 94, [88, 88]), (99, 99, [94]), (81, 94, [75, 88, 88])],
)
def test_the_goal_of_an_action_is_the_release_figure_of_the_level(points: int, then: int, goals: list[int]) -> None:
    """R-S04: also when a higher rung acts for it: below that figure the reason for acting is gone."""
    ladder = Ladder()
    seen: list[int] = []
    for at in (points, then, then)[: len(goals)]:
        (decision,) = ladder.see(at)
        seen.append(decision.goal_bytes // POINT)
        ladder.end(ActionStatus.INEFFECTIVE)
    assert seen == goals


def test_the_goal_of_a_collect_is_its_entry() -> None:
    """R-P06: below it there is nothing to collect for."""
    (decision,) = Ladder(state=initial_state()).see(76)
    assert (decision.kind, decision.goal_bytes) == (ActionKind.COLLECT, 75 * POINT)


def test_an_unknown_signal_decides_and_changes_nothing() -> None:
    """R-S03: unknown is not zero: an emergency neither ends nor acts on it."""
    ladder = Ladder()
    ladder.see(99)
    ladder.end(ActionStatus.EFFECTIVE)
    before = ladder.state
    assert ladder.see(None, after=600, unmanaged=99) == ()
    assert ladder.state == before


def test_the_cause_names_signal_and_threshold() -> None:
    """R-S03: a decision can be understood without the code."""
    plan = msgspec.structs.replace(PLAN, total_bytes=150 * MIB)
    (decision,) = Ladder(plan=plan).see(121.3)
    assert decision.cause == "signal 121.3 MiB is over the soft entry of 120.0 MiB"


def test_inside_the_hysteresis_band_the_cause_names_the_release() -> None:
    """R-S03: the second action of a level may stand below its entry."""
    ladder = Ladder()
    ladder.see(81)
    ladder.end(ActionStatus.EFFECTIVE)
    (decision,) = ladder.see(77, after=10)
    assert decision.cause == "signal 77.0 MiB is still over the soft release of 75.0 MiB"


def test_one_action_at_a_time() -> None:
    """R-S03: while an action runs nothing else starts, though the level rises."""
    ladder = Ladder()
    ladder.see(81)
    assert ladder.acts(99, after=60) == []
    assert ladder.state.level == Level.EMERGENCY
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(99) == [EVICT]


def test_a_level_waits_for_its_cool_down() -> None:
    """R-S03: ten seconds after the end of an action, not sooner."""
    ladder = Ladder()
    assert ladder.acts(85) == [CLEANUP]
    ladder.end(ActionStatus.EFFECTIVE, after=3)
    assert ladder.acts(85, after=9.875) == []
    assert ladder.acts(85, after=0.125) == [CLEANUP]


def test_a_cool_down_holds_for_its_own_level_only() -> None:
    """R-S03: a rise to the next level acts at once."""
    ladder = Ladder()
    ladder.see(85)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(94) == [SPILL]


def test_the_emergency_has_no_cool_down_while_it_frees() -> None:
    """R-P06: effective evictions follow each other."""
    ladder = Ladder()
    for _ in range(5):
        assert ladder.acts(110) == [EVICT]
        ladder.end(ActionStatus.EFFECTIVE)


def test_a_result_that_is_not_in_flight_changes_nothing() -> None:
    """R-S03: a late or repeated result cannot open the way for a second action."""
    ladder = Ladder()
    (decision,) = ladder.see(81)
    other = Decision(ActionKind.EVICT, Level.EMERGENCY, 1, 1, "another")
    assert ladder.state == finished(ladder.state, other, ActionStatus.FAILED, exhausted=True, now=ladder.now)
    assert ladder.state == finished(ladder.state, decision, ActionStatus.RUNNING, exhausted=False, now=ladder.now)


@pytest.mark.parametrize("status", [ActionStatus.INEFFECTIVE, ActionStatus.FAILED])
def test_too_little_freed_brings_the_next_rung_without_waiting(status: ActionStatus) -> None:
    """R-S06: Cleanup, Spill, Evict, each at the next step, then nothing for ten seconds, then one more try."""
    ladder = Ladder()
    for expected in (CLEANUP, SPILL, EVICT):
        assert ladder.acts(85) == [expected]
        ladder.end(status)
    assert ladder.acts(99, after=9.875) == []
    assert ladder.acts(99, after=0.125) == [EVICT]
    ladder.end(status)
    assert ladder.acts(99, after=9.875) == []


def test_an_escalated_action_says_why() -> None:
    """R-S06: at 85 percent a Spill needs an explanation."""
    ladder = Ladder()
    ladder.see(85)
    ladder.end(ActionStatus.INEFFECTIVE)
    (decision,) = ladder.see(85)
    assert decision.cause == "the action before freed too little; signal 85.0 MiB is over the soft entry of 80.0 MiB"
    assert decision.bytes_to_free == 11 * POINT


def test_an_effective_action_ends_the_escalation() -> None:
    """R-S06: after Spill helped, the soft level starts again with Cleanup, after its cool-down."""
    ladder = Ladder()
    ladder.see(85)
    ladder.end(ActionStatus.INEFFECTIVE)
    ladder.see(85)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(80, after=9) == []
    assert ladder.acts(80, after=1) == [CLEANUP]


def test_back_at_normal_nothing_escalates() -> None:
    """R-S06: the next rung runs while the level is above Normal, not later."""
    ladder = Ladder()
    ladder.see(81)
    ladder.end(ActionStatus.INEFFECTIVE)
    assert ladder.acts(74) == []
    assert ladder.acts(81, after=10) == [CLEANUP]


def test_an_emergency_with_nothing_evictable_makes_no_loop() -> None:
    """R-S06: one minute at 99 percent with only Critical data left: one try in ten seconds, not eighty."""
    ladder = Ladder()
    tries = 0
    for _ in range(480):
        if ladder.see(99):
            tries += 1
            ladder.end(ActionStatus.INEFFECTIVE, exhausted=True, after=0)
    assert tries == 6


def test_a_last_eviction_that_freed_enough_still_pauses() -> None:
    """R-S06: effective and exhausted: nothing is left, and asking again would free nothing."""
    ladder = Ladder()
    ladder.see(99)
    ladder.end(ActionStatus.EFFECTIVE, exhausted=True)
    assert ladder.acts(99, after=9.875) == []
    assert ladder.acts(99, after=0.125) == [EVICT]


@pytest.mark.parametrize(("status", "pause"), [(ActionStatus.UNVERIFIED, 1), (ActionStatus.OBSERVED, 10)])
def test_an_emergency_pauses_after_a_result_that_shows_no_effect(status: ActionStatus, pause: int) -> None:
    """R-S03: unverified and observed actions do not escalate and do not loop."""
    ladder = Ladder()
    ladder.see(99)
    ladder.end(status)
    assert ladder.acts(99, after=pause - 0.125) == []
    assert ladder.acts(99, after=0.125) == [EVICT]


@pytest.mark.parametrize("status", [ActionStatus.UNVERIFIED, ActionStatus.OBSERVED])
def test_an_unverified_or_observed_cleanup_waits_for_its_cool_down(status: ActionStatus) -> None:
    """R-S06: no proof of harm is no reason to escalate."""
    ladder = Ladder()
    ladder.see(85)
    ladder.end(status)
    assert ladder.acts(85, after=9.875) == []
    assert ladder.acts(85, after=0.125) == [CLEANUP]


def test_the_end_of_observe_mode_acts_at_once() -> None:
    """R-S03: the pause after an observed decision ends with Observe."""
    ladder = Ladder(plan=msgspec.structs.replace(PLAN, mode=Mode.OBSERVE))
    ladder.see(99)
    ladder.end(ActionStatus.OBSERVED)
    ladder.follow(PLAN)
    assert ladder.acts(99) == [EVICT]


def test_another_signal_starts_afresh() -> None:
    """R-S03: figures of two signals are not compared; counted transitions and the running action stay."""
    ladder = Ladder()
    (running,) = ladder.see(99)
    ladder.follow(msgspec.structs.replace(HALVED, signal=Signal.WORKING_SET))
    assert ladder.state == LadderState(transitions=1, in_flight=running)


def test_a_lower_total_leaves_the_old_entries_until_the_signal_is_under_the_new_soft_entry() -> None:
    """R-P03: Resize works first; the ladder takes over where it left off."""
    ladder = Ladder()
    ladder.see(60)
    ladder.follow(HALVED)
    assert ladder.acts(60) == []
    assert ladder.acts(40) == []
    assert ladder.acts(37) == []
    assert ladder.acts(41) == [(ActionKind.CLEANUP, Level.SOFT)]


def test_a_lower_total_holds_after_ten_seconds_at_the_latest() -> None:
    """R-P03: a Resize that does not succeed is not waited for."""
    ladder = Ladder()
    ladder.see(60)
    ladder.follow(HALVED)
    assert ladder.acts(60, after=9.875) == []
    (decision,) = ladder.see(60, after=0.125)
    assert (decision.kind, decision.bytes_to_free) == (ActionKind.EVICT, 60 * POINT - 93 * POINT // 2)


def test_during_a_passage_the_old_thresholds_act() -> None:
    """R-P03: the old plan is not switched off before the new one holds."""
    ladder = Ladder()
    ladder.see(60)
    ladder.follow(HALVED)
    (decision,) = ladder.see(81)
    assert (decision.kind, decision.bytes_to_free) == (ActionKind.CLEANUP, 7 * POINT)


def test_a_total_lowered_again_and_again_holds_all_the_same() -> None:
    """R-P03: a second lowering does not prolong the passage of the first."""
    ladder = Ladder()
    ladder.see(60)
    for total in (99, 98, 97, 96, 61):
        ladder.follow(msgspec.structs.replace(PLAN, total_bytes=total * POINT))
        ladder.now += 2
    assert ladder.acts(60) == [EVICT]


def test_a_higher_total_holds_at_once() -> None:
    """R-P03: more room ends an emergency with the next sample, and ends a passage."""
    ladder = Ladder()
    ladder.see(99)
    ladder.end(ActionStatus.EFFECTIVE)
    ladder.follow(HALVED)
    ladder.follow(DOUBLED)
    assert ladder.acts(99) == []
    assert ladder.state.level == Level.NORMAL


def test_other_thresholds_hold_at_once() -> None:
    """R-P05: only a lower total waits."""
    ladder = Ladder()
    ladder.see(70)
    ladder.follow(with_rung("soft", percent=65, release_percent=60))
    assert ladder.acts(70) == [CLEANUP]


def test_garbage_is_collected_when_the_signal_crosses_the_entry_upward() -> None:
    """R-P06: no rung, no transition; once per crossing."""
    ladder = Ladder(state=initial_state())
    assert ladder.acts(74) == []
    assert ladder.acts(75) == [(ActionKind.COLLECT, Level.NORMAL)]
    assert ladder.state.transitions == 0
    ladder.end(ActionStatus.INEFFECTIVE)
    assert ladder.acts(79, after=600) == []
    assert ladder.state.level == Level.NORMAL


def test_garbage_is_collected_again_after_the_signal_was_below() -> None:
    """R-P06: a second crossing counts, but not within the cool-down."""
    ladder = Ladder(state=initial_state())
    ladder.see(76)
    ladder.end(ActionStatus.EFFECTIVE)
    ladder.see(74)
    assert ladder.acts(76, after=59.75) == []
    assert ladder.acts(76, after=0.125) == [(ActionKind.COLLECT, Level.NORMAL)]


def test_garbage_is_collected_again_when_unmanaged_bytes_grew() -> None:
    """R-P06: five points above the least since the last collect."""
    ladder = Ladder(state=initial_state())
    ladder.see(76, unmanaged=30)
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.see(76, unmanaged=20, after=60) == ()
    assert ladder.see(76, unmanaged=24) == ()
    (decision,) = ladder.see(76, unmanaged=25)
    assert decision.kind == ActionKind.COLLECT


def test_garbage_waits_beside_an_action_of_a_rung() -> None:
    """R-P06: a jump over both entries acts on the rung first and collects after it."""
    ladder = Ladder(state=initial_state())
    assert ladder.acts(81) == [CLEANUP]
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(81) == [(ActionKind.COLLECT, Level.SOFT)]


def test_a_collect_that_frees_nothing_does_not_escalate() -> None:
    """R-S06: only rungs escalate."""
    ladder = Ladder(state=initial_state())
    ladder.see(76)
    ladder.end(ActionStatus.FAILED)
    assert ladder.acts(81) == [CLEANUP]


def test_ten_minutes_between_79_and_81_percent_act_once_per_cool_down() -> None:
    """R-S03, fault 44: 100 ms samples, every action effective and of no lasting help."""
    ladder, times = Ladder(state=initial_state()), list[float]()
    for tick in range(6000):
        for decision in ladder.see(79 if tick % 20 < 10 else 81, after=0.1):
            times += [ladder.now] if decision.kind is ActionKind.CLEANUP else []
            ladder.end(ActionStatus.EFFECTIVE, after=0)
    assert ladder.state.transitions == 1
    assert 55 <= len(times) <= 60
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 10


# --- properties on random histories -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """A look at the signal, and how an action ends that may be in flight before it."""

    eighths: int
    permille: int | None
    unmanaged: int | None
    ending: ActionStatus | None
    exhausted: bool


@dataclass(frozen=True)
class Event:
    """What one step made of a moment; `ended` is the action that ended just before."""

    now: float
    known: bool
    ended: tuple[Decision, ActionStatus, bool] | None
    before: LadderState
    after: LadderState
    decisions: tuple[Decision, ...]


ENDINGS = [status for status in ActionStatus if status not in {ActionStatus.QUEUED, ActionStatus.RUNNING}]
SIGNALS = st.none() | st.integers(0, 1200) | st.sampled_from([749, 750, 751, 799, 800, 879, 929, 930, 940, 979, 980])
MOMENTS = st.builds(
    Moment,
    st.integers(1, 100),
    SIGNALS,
    st.none() | st.integers(0, 100),
    st.none() | st.sampled_from(ENDINGS),
    st.booleans(),
)
HISTORIES = st.lists(MOMENTS, max_size=60)


def lived(history: list[Moment], plan: EffectivePlan = PLAN) -> list[Event]:
    """The history as the ladder went through it, on a clock of exact eighths of a second."""
    events = list[Event]()
    state, now = initial_state(), 1000.0
    for moment in history:
        ended = None
        now += moment.eighths / 8
        if state.in_flight is not None and moment.ending is not None:
            ended = (state.in_flight, moment.ending, moment.exhausted)
            state = finished(state, *ended, now)
        before = state
        signal = None if moment.permille is None else moment.permille * plan.total_bytes // 1000
        unmanaged = None if moment.unmanaged is None else moment.unmanaged * POINT
        state, decisions = step(state, Observation(now, signal, unmanaged), plan)
        events.append(Event(now, signal is not None, ended, before, state, decisions))
    return events


@given(HISTORIES)
def test_no_history_acts_on_an_unknown_signal(history: list[Moment]) -> None:
    """R-S03: None decides nothing and changes nothing, whatever came before."""
    for event in lived(history):
        assert event.known or (event.decisions, event.after) == ((), event.before)


@given(HISTORIES)
def test_no_history_has_two_actions_at_once(history: list[Moment]) -> None:
    """R-S03: between two decisions the first one ends."""
    running: Decision | None = None
    for event in lived(history):
        running = None if event.ended else running
        assert len(event.decisions) <= (running is None)
        running = event.decisions[0] if event.decisions else running
        assert event.after.in_flight == running


@given(HISTORIES)
def test_no_history_acts_within_a_cool_down(history: list[Moment]) -> None:
    """R-S03: an action that is no escalation keeps the pause of its rung and of its last result."""
    least = {ActionStatus.UNVERIFIED: 1, ActionStatus.OBSERVED: 10}
    ready: dict[Level, float] = {}
    for event in lived(history):
        if event.ended and event.ended[0].kind is not ActionKind.COLLECT:
            decision, status, _ = event.ended
            pause = max(rung_of(PLAN, decision.level).cooldown_seconds, least.get(status, 0))
            ready[decision.level] = event.now + pause
        for decision in event.decisions:
            free_to_act = decision.kind is ActionKind.COLLECT or event.before.escalated_to is not None
            assert free_to_act or event.now >= ready.get(decision.level, 0)


@given(HISTORIES)
def test_no_history_collects_garbage_within_its_cool_down(history: list[Moment]) -> None:
    """R-P06: sixty seconds between two collects, whatever crosses or grows."""
    ready = 0.0
    for event in lived(history):
        if event.ended and event.ended[0].kind is ActionKind.COLLECT:
            ready = event.now + 60
        assert event.now >= ready or ActionKind.COLLECT not in {decision.kind for decision in event.decisions}


@given(HISTORIES)
def test_no_history_acts_while_nothing_is_left(history: list[Moment]) -> None:
    """R-S06: ten seconds of silence after the top rung freed too little or ran out."""
    silent_until = 0.0
    for event in lived(history):
        if event.ended and event.ended[0].kind is not ActionKind.COLLECT and event.ended[0].level is Level.EMERGENCY:
            _, status, exhausted = event.ended
            if exhausted or status in {ActionStatus.INEFFECTIVE, ActionStatus.FAILED}:
                silent_until = event.now + 10
        assert event.now >= silent_until or event.decisions == ()


@given(HISTORIES)
def test_every_action_asks_for_at_least_its_share_at_or_above_the_level(history: list[Moment]) -> None:
    """R-P06: freePercent is a least amount, and the acting rung never lies below the level."""
    for event in lived(history):
        for decision in event.decisions:
            assert decision.level.rank >= event.after.level.rank
            if decision.kind is not ActionKind.COLLECT:
                assert decision.bytes_to_free >= PLAN.percent_bytes(rung_of(PLAN, decision.level).free_percent)


@given(HISTORIES, st.integers(0, 1200), st.integers(0, 1200))
def test_a_higher_signal_never_gives_a_lower_level(history: list[Moment], one: int, other: int) -> None:
    """R-S03: of the same state, the level follows the signal."""
    state = lived(history)[-1].after if history else initial_state()
    low, high = (
        step(state, Observation(9000.0, permille * PLAN.total_bytes // 1000, None), PLAN)[0].level.rank
        for permille in sorted((one, other))
    )
    assert low <= high


@given(st.sampled_from([(750, 800), (880, 930), (940, 980)]), st.data())
def test_a_signal_inside_a_hysteresis_band_makes_at_most_one_transition(
    band: tuple[int, int], data: st.DataObject
) -> None:
    """R-S03: from release up to and including entry, after the first sample of the band."""
    inside = st.lists(st.integers(*band), min_size=1, max_size=50)
    events = lived(
        [Moment(1, permille, None, ActionStatus.EFFECTIVE, exhausted=False) for permille in data.draw(inside)]
    )
    assert events[-1].after.transitions - events[0].after.transitions <= 1


@given(HISTORIES)
def test_the_same_history_gives_the_same_decisions(history: list[Moment]) -> None:
    """R-S03: pure: a recorded history can be replayed."""
    assert lived(history) == lived(history)
