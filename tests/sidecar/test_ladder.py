"""The ladder decides what to do about a signal, in scenarios.

Distances to the limit: `test_ladder_distances`; swings: `test_ladder_stability`; any history: `test_ladder_properties`.
"""

from __future__ import annotations

import msgspec
import pytest

from membudget_contract.policy import Mode, Signal
from membudget_contract.policy_thresholds import RungAction
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.back_off import FIRST_SECONDS, LONGEST_SECONDS
from membudget_sidecar.deciding.ladder import finished, initial_state
from membudget_sidecar.deciding.ladder_state import Decision, LadderState
from sidecar.driven_ladder import CLEANUP, EVICT, PLAN, POINT, SPILL, WITHOUT_COLLECT, Ladder, with_rung

HALVED = msgspec.structs.replace(PLAN, total_bytes=50 * POINT)
DOUBLED = msgspec.structs.replace(PLAN, total_bytes=200 * POINT)


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


def test_rungs_with_one_and_the_same_action_do_not_repeat_it_at_once() -> None:
    """R-S06: to evict thrice in a row changes as little as once."""
    plan = with_rung("soft", with_rung("hard", action=RungAction.EVICT), action=RungAction.EVICT)
    ladder = Ladder(plan=plan)
    assert ladder.acts(85) == [(ActionKind.EVICT, Level.SOFT)]
    ladder.end(ActionStatus.INEFFECTIVE)
    assert ladder.acts(85, after=9.875) == []
    assert ladder.acts(85, after=0.125) == [(ActionKind.EVICT, Level.SOFT)]


def test_an_escalation_passes_a_rung_that_just_freed_too_little() -> None:
    """R-S06: Spill was in vain three seconds ago; after a Cleanup in vain it is Evict's turn again."""
    ladder = Ladder()
    assert ladder.acts(94) == [SPILL]
    ladder.end(ActionStatus.INEFFECTIVE)
    assert ladder.acts(94) == [EVICT]
    ladder.end(ActionStatus.EFFECTIVE)
    assert ladder.acts(85) == [CLEANUP]
    ladder.end(ActionStatus.INEFFECTIVE)
    assert ladder.acts(85) == [EVICT]


# --- only Critical data left --------------------------------------------------------------------------------------


def test_with_only_critical_data_left_every_rung_is_tried_once_and_then_once_a_minute() -> None:
    """R-S06, fault 46: ten minutes at 99 percent, the engine reports nothing evictable: no loop, and not deaf."""
    ladder, acted = Ladder(), list[tuple[ActionKind, Level]]()
    for _ in range(4800):
        acted += ladder.acts(99, evictable=0)
        if ladder.state.in_flight:
            ladder.end(ActionStatus.INEFFECTIVE, exhausted=True, after=0)
    assert ladder.state.only_critical_left
    assert acted == [EVICT] * 10


def test_only_critical_left_ends_when_something_is_evictable_again() -> None:
    """R-S06: what the engine reports counts, and ten seconds after the last try there is the next."""
    ladder = Ladder()
    ladder.see(99, evictable=0)
    ladder.end(ActionStatus.INEFFECTIVE, exhausted=True)
    assert ladder.acts(99, after=11, evictable=0) == []
    assert ladder.acts(99, evictable=5) == [EVICT]
    assert not ladder.state.only_critical_left


def test_an_exhausted_eviction_alone_says_that_only_critical_is_left() -> None:
    """R-S06: also where no report is fresh; an exhausted Cleanup says nothing of the kind, and Normal ends it."""
    ladder = Ladder()
    ladder.see(85)
    ladder.end(ActionStatus.INEFFECTIVE, exhausted=True)
    assert not ladder.state.only_critical_left
    ladder.see(99)
    ladder.end(ActionStatus.INEFFECTIVE, exhausted=True)
    assert ladder.state.only_critical_left
    ladder.see(70)
    assert not ladder.state.only_critical_left


def test_garbage_is_collected_while_nothing_else_is_left() -> None:
    """R-P06: what the pause of the rungs holds back is not garbage."""
    ladder = Ladder(state=initial_state())
    ladder.see(99)
    ladder.end(ActionStatus.INEFFECTIVE, exhausted=True)
    assert ladder.acts(99) == [(ActionKind.COLLECT, Level.EMERGENCY)]


# --- harm ---------------------------------------------------------------------------------------------------------


def harm(ladder: Ladder, points: float, *, limit: int | None = None) -> None:
    """An action decided at `points` ends effective, and shows harm twelve seconds later, at 70 percent."""
    (decision,) = ladder.see(points, limit=limit)
    ladder.end(ActionStatus.EFFECTIVE)
    ladder.see(70, after=12)
    ladder.state = finished(ladder.state, decision, ActionStatus.HARMFUL, exhausted=False, now=ladder.now)


def test_a_kind_that_did_harm_rests_a_minute_and_the_next_rung_waits_for_its_own_entry() -> None:
    """R-S06: no Cleanup at 85 percent, and no Spill in its place; at 94 percent it spills."""
    ladder = Ladder(plan=WITHOUT_COLLECT)
    harm(ladder, 85)
    assert ladder.acts(85, after=1) == []
    assert ladder.acts(92, after=FIRST_SECONDS - 2) == []
    assert ladder.acts(94) == [SPILL]
    ladder.end(ActionStatus.EFFECTIVE)
    ladder.see(70)
    assert ladder.acts(85, after=1) == [CLEANUP]


def test_an_escalation_does_not_reach_for_a_kind_that_is_backed_off() -> None:
    """R-S06: Spill did harm; a Cleanup that freed too little is tried again after its cool-down instead."""
    ladder = Ladder(plan=WITHOUT_COLLECT)
    harm(ladder, 94)
    assert ladder.acts(85, after=1) == [CLEANUP]
    ladder.end(ActionStatus.INEFFECTIVE)
    assert ladder.acts(85) == []
    assert ladder.acts(85, after=10) == [CLEANUP]


def test_the_pause_doubles_with_harm_up_to_ten_minutes() -> None:
    """R-S06: 60, 120, 240, 480, 600, 600 seconds, though each action counted as effective first."""
    ladder, pauses = Ladder(plan=WITHOUT_COLLECT), list[float]()
    for _ in range(6):
        harm(ladder, 85)
        back_off = ladder.state.back_offs[ActionKind.CLEANUP]
        pauses.append(back_off.until - ladder.now)
        assert ladder.acts(85, after=back_off.until - ladder.now - 0.25) == []
        ladder.see(70)
        ladder.now += 10
    assert pauses == [60, 120, 240, 480, LONGEST_SECONDS, LONGEST_SECONDS]


def test_an_effective_action_without_harm_halves_the_pause_again() -> None:
    """R-S06: 60, 120, 240; after one without harm 240 again and not 480; after two more 120."""
    ladder, pauses = Ladder(plan=WITHOUT_COLLECT), list[float]()
    for harmless in (0, 0, 0, 1, 2):
        for _ in range(harmless):
            assert ladder.acts(85, after=700) == [CLEANUP]
            ladder.end(ActionStatus.EFFECTIVE)
            ladder.see(70)
        ladder.now += 700
        harm(ladder, 85)
        pauses.append(ladder.state.back_offs[ActionKind.CLEANUP].until - ladder.now)
    assert pauses == [60, 120, 240, 240, 120]


def test_an_emergency_never_backs_off() -> None:
    """R-S06: an eviction that slows requests down is better than an OOM kill; below the entry it rests all the same."""
    ladder = Ladder(plan=with_rung("soft", WITHOUT_COLLECT, action=RungAction.EVICT))
    harm(ladder, 99)
    assert ladder.acts(85) == []
    assert ladder.acts(99) == [EVICT]


def test_harm_of_an_action_does_not_end_the_one_in_flight() -> None:
    """R-S06: the verdict comes late, and is about another action."""
    ladder = Ladder(plan=WITHOUT_COLLECT)
    (first,) = ladder.see(85)
    ladder.end(ActionStatus.EFFECTIVE)
    (second,) = ladder.see(94)
    ladder.state = finished(ladder.state, first, ActionStatus.HARMFUL, exhausted=False, now=ladder.now)
    assert ladder.state.in_flight == second


def test_growth_that_goes_on_meets_the_next_rung_though_it_has_just_helped_out() -> None:
    """R-S03, R-S06: a Spill on behalf of the soft rung is not the hard rung's own; growth is there a second later."""
    ladder = Ladder()
    assert [CLEANUP] == ladder.acts(81)
    ladder.end(ActionStatus.INEFFECTIVE)
    assert [SPILL] == ladder.acts(82)
    ladder.end(ActionStatus.EFFECTIVE)
    assert [] == ladder.acts(81, after=0.5)
    assert [SPILL] == ladder.acts(93, after=1.0)


def test_a_rung_rests_after_its_own_action_and_after_one_that_did_not_help_out() -> None:
    """R-S03: its cool-down holds against what it did for its own reason, and against repeating what failed."""
    own = Ladder()
    assert [SPILL] == own.acts(94)
    own.end(ActionStatus.EFFECTIVE)
    assert [] == own.acts(94, after=1.0)
    helping = Ladder()
    assert [CLEANUP] == helping.acts(81)
    helping.end(ActionStatus.INEFFECTIVE)
    assert [SPILL] == helping.acts(82)
    helping.end(ActionStatus.UNVERIFIED)
    assert [] == helping.acts(94, after=0.5)
