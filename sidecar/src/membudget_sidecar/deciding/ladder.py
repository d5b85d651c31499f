"""The ladder: from a signal to what should be done about it (R-S03, R-S06, R-S13).

Covers: levels with hysteresis, cool-down, escalation after an action that freed too little, backing off from kinds that
did harm, the pause once nothing is left to free, when to collect garbage, and the passage to a lower budget. Pure: no
clock, no file, no socket; the same inputs give the same decisions, so a recorded history can be replayed. Does not
know the figures of a rung (`entries`), read the signal (`sample`), carry out or verify what it decides (`actions`,
`verification`) nor put it into words (`explain`).

Invariants: an unknown signal decides nothing; at most one action is in flight; a level is left only below its own
release figures; an action that changes nothing is never repeated without a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from membudget_contract.plan import EffectivePlan
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.back_off import harmed, relieved
from membudget_sidecar.deciding.entries import GONE_SECONDS, STEADY_SECONDS, Entry, collect_reason, entries, rungs, why
from membudget_sidecar.deciding.ladder_state import (
    Decision,
    EntryKind,
    LadderState,
    LastAction,
    Observation,
    Passage,
)

EXHAUSTED_SECONDS: Final = 10.0
"""How long nothing is tried once the last action there is found nothing left to free."""

ONLY_CRITICAL_SECONDS: Final = 60.0
"""The same while the engine reports that only Critical data is left. One try a minute, since an allocator may hold
free memory that no report knows of."""

PASSAGE_SECONDS: Final = 10.0
"""How long a lower budget leaves the old entries in force, so that Resize can work before the ladder does."""

COLLECT_AGAIN_PERCENT: Final = 5
"""Growth of unmanaged bytes, in points of the budget, after which garbage is worth collecting again."""

SPILL_SECONDS: Final = 5.0
"""What a Spill may take (R-S04). Where the limit is met sooner values are dropped: a kill would drop all of them."""

_LEAST_PAUSE: Final[Mapping[ActionStatus, float]] = {ActionStatus.UNVERIFIED: 1.0, ActionStatus.OBSERVED: 10.0}
"""Seconds between actions of one rung, whatever its cool-down says: neither result shows that the signal will fall."""

_TOO_LITTLE: Final = frozenset({ActionStatus.INEFFECTIVE, ActionStatus.FAILED})
_UNFINISHED: Final = frozenset({ActionStatus.QUEUED, ActionStatus.RUNNING})


def initial_state() -> LadderState:
    """A ladder that has seen nothing yet."""
    return LadderState()


def step(state: LadderState, observation: Observation, plan: EffectivePlan) -> tuple[LadderState, tuple[Decision, ...]]:
    """What to do now: at most one decision, which is then in flight until `finished`."""
    signal = observation.signal_bytes
    if signal is None:
        return state, ()
    passage = _passage(state, observation.now, signal, plan)
    ruling = passage.plan if passage else plan
    state = _moved(replace(state, passage=passage), observation, signal, ruling)
    state = _watching_garbage(state, observation, signal, ruling)
    if state.in_flight is not None:
        return state, ()
    decision = _rung_decision(state, observation, signal, ruling)
    decision = decision or _collect_decision(state, observation, signal, ruling)
    if decision is None:
        return state, ()
    if decision.kind is ActionKind.COLLECT:
        state = replace(state, collect_armed=False, unmanaged_low_bytes=observation.unmanaged_bytes)
    return replace(state, in_flight=decision), (decision,)


def finished(state: LadderState, decision: Decision, status: ActionStatus, exhausted: bool, now: float) -> LadderState:
    """The state after an action ended; a result of anything but the action in flight changes nothing, except harm.

    Args:
        state: the ladder before.
        decision: what `step` decided.
        status: how it ended. HARMFUL comes later, once the harm shows, and then for an action that was EFFECTIVE.
        exhausted: the engine said that nothing was left that the action might touch.
        now: monotonic seconds.
    """
    if status is ActionStatus.HARMFUL:
        back_off = harmed(state.back_offs.get(decision.kind), now)
        state = replace(state, back_offs={**state.back_offs, decision.kind: back_off})
    if decision != state.in_flight or status in _UNFINISHED:
        return state
    if decision.kind is ActionKind.COLLECT:
        return replace(state, in_flight=None, collected_at=now)
    too_little = status in _TOO_LITTLE
    nothing_left = decision.escalates_to is None and (too_little or exhausted)
    back_offs = dict(state.back_offs)
    if status is ActionStatus.EFFECTIVE and decision.kind in back_offs:
        back_offs[decision.kind] = relieved(back_offs[decision.kind])
    return replace(
        state,
        in_flight=None,
        last_actions={**state.last_actions, decision.level: LastAction(now, status, decision.ruling is not None)},
        escalated_to=(decision.escalates_to or decision.level) if too_little else None,
        exhausted_at=now if nothing_left else None,
        only_critical_left=exhausted if decision.kind is ActionKind.EVICT else state.only_critical_left,
        back_offs=back_offs,
    )


def plan_changed(state: LadderState, old: EffectivePlan, new: EffectivePlan, now: float) -> LadderState:
    """The state under a new plan: a lower total passes over slowly, another signal starts afresh."""
    if new.signal is not old.signal:
        # Figures of two signals cannot be compared. An action under way stays so: two at once would fight.
        return LadderState(transitions=state.transitions, in_flight=state.in_flight, back_offs=state.back_offs)
    # A second lowering within a passage keeps its end, or a budget lowered again and again would never hold.
    passage = state.passage
    if passage is None or now >= passage.until:
        passage = Passage(plan=old, until=now + PASSAGE_SECONDS)
    return replace(
        state,
        passage=passage if new.total_bytes < passage.plan.total_bytes else None,
        # Who ends Observe wants the action that it held back, not the rest of its pause.
        last_actions=state.last_actions if new.mode is old.mode else {},
    )


def rests_until(state: LadderState, level: Level, plan: EffectivePlan) -> float:
    """When the cool-down of a rung's last action ends, or the pause that its result asks for.

    What freed enough for a rung below is no reason to rest: growth that goes on meets this one's own entry next.
    """
    last = state.last_actions.get(level)
    if last is None or (last.helped_out and last.status is ActionStatus.EFFECTIVE):
        return -float("inf")
    return last.at + max(rungs(plan)[level].cooldown_seconds, _LEAST_PAUSE.get(last.status, 0.0))


def exhausted_until(state: LadderState, observation: Observation) -> float:
    """When something is tried again after nothing was left to free."""
    if state.exhausted_at is None:
        return -float("inf")
    pause = ONLY_CRITICAL_SECONDS if observation.evictable_bytes == 0 else EXHAUSTED_SECONDS
    return state.exhausted_at + pause


def backed_off_until(state: LadderState, ruling: Level, kind: ActionKind) -> float:
    """Until when a kind rests that did harm; what an emergency needs never rests."""
    back_off = None if ruling is Level.EMERGENCY else state.back_offs.get(kind)
    return -float("inf") if back_off is None else back_off.until


def ruling_level(
    state: LadderState, observation: Observation, signal: int, plan: EffectivePlan
) -> tuple[Level, tuple[Entry, ...]]:
    """The highest rung up to the level that is over a release figure, with those entries; Normal when none is.

    It lies below the level while that is left only after STEADY_SECONDS.
    """
    for level in reversed(rungs(plan)):
        if level.rank > state.level.rank:
            continue
        held = state.held_by if level is state.level else frozenset(EntryKind)
        found = entries(level, observation, signal, plan)
        reasons = tuple(entry for entry in found if entry.kind in held and not entry.released)
        if reasons:
            return level, reasons
    return Level.NORMAL, ()


def _passage(state: LadderState, now: float, signal: int, plan: EffectivePlan) -> Passage | None:
    if state.passage is None or now >= state.passage.until or signal < plan.soft_entry_bytes:
        return None
    return state.passage


def _moved(state: LadderState, observation: Observation, signal: int, plan: EffectivePlan) -> LadderState:
    level, held_by = _level(state, observation, signal, plan)
    moved = level is not state.level
    state = replace(state, level=level, held_by=held_by, transitions=state.transitions + moved)
    ruling, _ = ruling_level(state, observation, signal, plan)
    if level is Level.NORMAL:
        return replace(state, escalated_to=None, only_critical_left=False)
    only_critical_left = state.only_critical_left
    if observation.evictable_bytes is not None:
        only_critical_left = observation.evictable_bytes == 0
    return replace(
        state,
        unreleased_at=observation.now if moved or ruling is level else state.unreleased_at,
        only_critical_left=only_critical_left,
    )


def _level(
    state: LadderState, observation: Observation, signal: int, plan: EffectivePlan
) -> tuple[Level, frozenset[EntryKind]]:
    """The highest level that is held, and by which entries."""
    for level in reversed(rungs(plan)):
        found = entries(level, observation, signal, plan)
        held_by = {entry.kind for entry in found if entry.entered}
        if level is state.level:
            held_by |= _kept(state, found, observation.now)
        elif level.rank < state.level.rank:
            held_by |= {entry.kind for entry in found if not entry.settled}
        if held_by:
            return level, frozenset(held_by)
    return Level.NORMAL, frozenset()


def _kept(state: LadderState, found: tuple[Entry, ...], now: float) -> set[EntryKind]:
    """The entries by which the level is held on, also below their release as long as that may be a swing or a gap."""
    quiet_seconds = now - state.unreleased_at
    gone, steady = quiet_seconds >= GONE_SECONDS, quiet_seconds >= STEADY_SECONDS
    left: set[EntryKind] = set()
    for entry in found:
        # A trend turns with every swing, so that a forecast far away says no more than one that is gone.
        by_forecast = entry.kind is EntryKind.SECONDS_TO_LIMIT
        if entry.released and (gone if by_forecast else entry.settled or steady):
            left.add(entry.kind)
    unknown = set(state.held_by) - {entry.kind for entry in found}
    return set(state.held_by) - left - (unknown if gone else set())


def _watching_garbage(state: LadderState, look: Observation, signal: int, plan: EffectivePlan) -> LadderState:
    """Arm the next collect below its entries, or when unmanaged bytes have grown since the last one."""
    armed = state.collect_armed or collect_reason(look, signal, plan) is None
    unmanaged = look.unmanaged_bytes
    if unmanaged is None:
        return replace(state, collect_armed=armed)
    low = unmanaged if state.unmanaged_low_bytes is None else min(state.unmanaged_low_bytes, unmanaged)
    grown = unmanaged - low >= plan.percent_bytes(COLLECT_AGAIN_PERCENT)
    return replace(state, collect_armed=armed or grown, unmanaged_low_bytes=low)


def _rung_decision(state: LadderState, look: Observation, signal: int, plan: EffectivePlan) -> Decision | None:
    ruling, reasons = ruling_level(state, look, signal, plan)
    if ruling is Level.NORMAL or look.now < exhausted_until(state, look):
        return None
    found = _acting(state, look, ruling, plan)
    if found is None:
        return None
    acting, escalated = found
    most = max(reasons, key=lambda entry: signal - entry.release_bytes)
    goal = most.release_bytes
    because = "the action before freed too little; " if escalated else ""
    kind, above = kind_at(acting, look, plan), _above(acting, plan)
    if kind is not action_of(acting, plan):
        because += "the limit is too near to write to disk; "
        above = above if above is not None and action_of(above, plan) is not kind else None
    return Decision(
        kind=kind,
        level=acting,
        bytes_to_free=max(
            plan.percent_bytes(rungs(plan)[acting].free_percent), signal - max(0, goal - plan.percent_bytes(1))
        ),
        goal_bytes=goal,
        cause=because + why(most.kind, ruling, look, signal, plan),
        escalates_to=above,
        observation=look,
        ruling=None if acting is ruling else ruling,
    )


def _acting(state: LadderState, look: Observation, ruling: Level, plan: EffectivePlan) -> tuple[Level, bool] | None:
    """The rung that acts now, and whether by escalation; else the ruling one once it has rested."""
    now = look.now
    ready: list[tuple[Level, bool]] = []
    escalated = state.escalated_to
    while escalated is not None and _just_failed(state, now, escalated, plan):
        escalated = _above(escalated, plan)
    if escalated is not None and escalated.rank >= ruling.rank:
        ready.append((escalated, True))
    if now >= rests_until(state, ruling, plan):
        ready.append((ruling, False))
    for level, by_escalation in ready:
        if now >= backed_off_until(state, ruling, kind_at(level, look, plan)):
            return level, by_escalation
    return None


def _just_failed(state: LadderState, now: float, level: Level, plan: EffectivePlan) -> bool:
    """Whether a rung freed too little within its cool-down: to escalate to it again would change as little."""
    last = state.last_actions.get(level)
    return last is not None and last.status in _TOO_LITTLE and now < rests_until(state, level, plan)


def kind_at(level: Level, look: Observation, plan: EffectivePlan) -> ActionKind:
    """What a rung does at this look: values are dropped where there is no time to write them to disk."""
    kind, seconds = action_of(level, plan), look.seconds_to_limit
    too_late = kind is ActionKind.SPILL and seconds is not None and seconds < SPILL_SECONDS
    return ActionKind.EVICT if too_late else kind


def action_of(level: Level, plan: EffectivePlan) -> ActionKind:
    """What a rung does."""
    return ActionKind(rungs(plan)[level].action.value)


def _above(level: Level, plan: EffectivePlan) -> Level | None:
    """The next rung with another action: the same one once more would change as little."""
    for other in rungs(plan):
        if other.rank > level.rank and action_of(other, plan) is not action_of(level, plan):
            return other
    return None


def _collect_decision(state: LadderState, look: Observation, signal: int, plan: EffectivePlan) -> Decision | None:
    reason, rule = collect_reason(look, signal, plan), plan.thresholds.collect
    if not state.collect_armed or reason is None:
        return None
    if state.collected_at is not None and look.now < state.collected_at + rule.cooldown_seconds:
        return None
    return Decision(
        kind=ActionKind.COLLECT,
        level=state.level,
        bytes_to_free=0,
        goal_bytes=plan.percent_bytes(rule.percent),
        cause=reason,
        observation=look,
    )
