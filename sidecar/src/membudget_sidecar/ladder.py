"""The ladder: from a signal to what should be done about it (R-S03, R-S06).

Covers: levels with hysteresis, cool-down, escalation after an action that freed too little, the pause once nothing
is left to free, when to collect garbage, and the passage to a lower budget. Pure: no clock, no file, no socket;
the same inputs give the same decisions, so a recorded history can be replayed. Does not read the signal (`sample`)
and does not carry out or verify what it decides (`actions`); backing off from harmful actions is not decided here.

Invariants: an unknown signal decides nothing; at most one action is in flight; a level is left only below its own
release figure; an action that changes nothing is never repeated without a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from membudget_contract.plan import EffectivePlan, Rung
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level

EXHAUSTED_SECONDS: Final = 10.0
"""How long nothing is tried once the top rung found nothing left to free."""

PASSAGE_SECONDS: Final = 10.0
"""How long a lower budget leaves the old entries in force, so that Resize can work before the ladder does."""

COLLECT_AGAIN_PERCENT: Final = 5
"""Growth of unmanaged bytes, in points of the budget, after which garbage is worth collecting again."""

_LEAST_PAUSE: Final[Mapping[ActionStatus, float]] = {ActionStatus.UNVERIFIED: 1.0, ActionStatus.OBSERVED: 10.0}
"""Seconds between actions of one rung, whatever its cool-down says: neither result shows that the signal will fall."""

_TOO_LITTLE: Final = frozenset({ActionStatus.INEFFECTIVE, ActionStatus.FAILED})
_UNFINISHED: Final = frozenset({ActionStatus.QUEUED, ActionStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class Observation:
    """One look: `now` in monotonic seconds; None is unknown, never zero."""

    now: float
    signal_bytes: int | None
    unmanaged_bytes: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be done. `level` is the rung that acts, above the ladder's own level after an escalation.

    `goal_bytes` is the signal under which the reason for acting is gone, however much or little was freed.
    """

    kind: ActionKind
    level: Level
    bytes_to_free: int
    goal_bytes: int
    cause: str


@dataclass(frozen=True, slots=True)
class LastAction:
    """When a rung's action ended, and the pause that its result asks for at least."""

    at: float
    least_pause_seconds: float


@dataclass(frozen=True, slots=True)
class Passage:
    """The plan whose entries still hold after its total was lowered, and until when at the latest."""

    plan: EffectivePlan
    until: float


@dataclass(frozen=True, slots=True)
class LadderState:
    """All that the ladder remembers."""

    level: Level = Level.NORMAL
    transitions: int = 0
    in_flight: Decision | None = None
    last_actions: Mapping[Level, LastAction] = field(default_factory=dict[Level, LastAction])
    escalated_to: Level | None = None
    """The rung that acts next without its cool-down, because the one before freed too little."""
    exhausted_until: float | None = None
    collect_armed: bool = True
    collected_at: float | None = None
    unmanaged_low_bytes: int | None = None
    """The least unmanaged bytes seen since the last collect; growth is measured from here."""
    passage: Passage | None = None


def initial_state() -> LadderState:
    """A ladder that has seen nothing yet."""
    return LadderState()


def step(state: LadderState, observation: Observation, plan: EffectivePlan) -> tuple[LadderState, tuple[Decision, ...]]:
    """What to do now: at most one decision, which is then in flight until `finished`."""
    now, signal = observation.now, observation.signal_bytes
    if signal is None:
        return state, ()
    passage = _passage(state, now, signal, plan)
    ruling = passage.plan if passage else plan
    state = _moved(replace(state, passage=passage), _level(state.level, signal, ruling))
    state = _watching_garbage(state, signal, observation.unmanaged_bytes, ruling)
    exhausted = state.exhausted_until is not None and now < state.exhausted_until
    if state.in_flight is not None or exhausted:
        return state, ()
    decision = _rung_decision(state, now, signal, ruling) or _collect_decision(state, now, signal, ruling)
    if decision is None:
        return state, ()
    if decision.kind is ActionKind.COLLECT:
        state = replace(state, collect_armed=False, unmanaged_low_bytes=observation.unmanaged_bytes)
    return replace(state, in_flight=decision), (decision,)


def finished(state: LadderState, decision: Decision, status: ActionStatus, exhausted: bool, now: float) -> LadderState:
    """The state after an action ended; a result of anything but the action in flight changes nothing.

    Args:
        state: the ladder before.
        decision: what `step` decided.
        status: how it ended.
        exhausted: the engine said that nothing was left that the action might touch.
        now: monotonic seconds.
    """
    if decision != state.in_flight or status in _UNFINISHED:
        return state
    if decision.kind is ActionKind.COLLECT:
        return replace(state, in_flight=None, collected_at=now)
    too_little = status in _TOO_LITTLE
    nothing_left = decision.level is Level.EMERGENCY and (too_little or exhausted)
    last_action = LastAction(at=now, least_pause_seconds=_LEAST_PAUSE.get(status, 0.0))
    return replace(
        state,
        in_flight=None,
        last_actions={**state.last_actions, decision.level: last_action},
        escalated_to=_next_rung(decision.level) if too_little else None,
        exhausted_until=now + EXHAUSTED_SECONDS if nothing_left else None,
    )


def plan_changed(state: LadderState, old: EffectivePlan, new: EffectivePlan, now: float) -> LadderState:
    """The state under a new plan: a lower total passes over slowly, another signal starts afresh."""
    if new.signal is not old.signal:
        # Figures of two signals cannot be compared. An action under way stays so: two at once would fight.
        return LadderState(transitions=state.transitions, in_flight=state.in_flight)
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


def _passage(state: LadderState, now: float, signal: int, plan: EffectivePlan) -> Passage | None:
    if state.passage is None or now >= state.passage.until or signal < plan.soft_entry_bytes:
        return None
    return state.passage


def _rungs(plan: EffectivePlan) -> dict[Level, Rung]:
    thresholds = plan.thresholds
    return {Level.SOFT: thresholds.soft, Level.HARD: thresholds.hard, Level.EMERGENCY: thresholds.emergency}


def _next_rung(level: Level) -> Level:
    """The rung above; the top rung is its own next: it alone is tried again after the pause."""
    levels = list(Level)
    return levels[min(level.rank + 1, Level.EMERGENCY.rank)]


def _level(before: Level, signal: int, plan: EffectivePlan) -> Level:
    """The highest level that the signal holds: one reached before from its release figure on, others from entry."""
    reached = Level.NORMAL
    for level, rung in _rungs(plan).items():
        percent = rung.release_percent if level.rank <= before.rank else rung.percent
        if signal >= plan.percent_bytes(percent):
            reached = level
    return reached


def _moved(state: LadderState, level: Level) -> LadderState:
    transitions = state.transitions + (level is not state.level)
    escalated_to = None if level is Level.NORMAL else state.escalated_to
    return replace(state, level=level, transitions=transitions, escalated_to=escalated_to)


def _watching_garbage(state: LadderState, signal: int, unmanaged: int | None, plan: EffectivePlan) -> LadderState:
    """Arm the next collect below its entry, or when unmanaged bytes have grown since the last one."""
    armed = state.collect_armed or signal < plan.percent_bytes(plan.thresholds.collect.percent)
    if unmanaged is None:
        return replace(state, collect_armed=armed)
    low = unmanaged if state.unmanaged_low_bytes is None else min(state.unmanaged_low_bytes, unmanaged)
    grown = unmanaged - low >= plan.percent_bytes(COLLECT_AGAIN_PERCENT)
    return replace(state, collect_armed=armed or grown, unmanaged_low_bytes=low)


def _rung_decision(state: LadderState, now: float, signal: int, plan: EffectivePlan) -> Decision | None:
    level, escalated_to, rungs = state.level, state.escalated_to, _rungs(plan)
    if level is Level.NORMAL:
        return None
    if escalated_to is not None and escalated_to.rank >= level.rank:
        acting, because = escalated_to, "the action before freed too little; "
    elif _rested(state.last_actions.get(level), rungs[level].cooldown_seconds, now):
        acting, because = level, ""
    else:
        return None
    return Decision(
        kind=ActionKind(rungs[acting].action.value),
        level=acting,
        bytes_to_free=_bytes_to_free(signal, rungs[level], rungs[acting], plan),
        goal_bytes=plan.percent_bytes(rungs[level].release_percent),
        cause=because + _cause(level, signal, plan),
    )


def _rested(last: LastAction | None, cooldown_seconds: int, now: float) -> bool:
    return last is None or now >= last.at + max(cooldown_seconds, last.least_pause_seconds)


def _bytes_to_free(signal: int, level: Rung, acting: Rung, plan: EffectivePlan) -> int:
    """The acting rung's share of the budget, or more: what brings the signal one point under the level's release."""
    wanted = plan.percent_bytes(level.release_percent) - plan.percent_bytes(1)
    return max(plan.percent_bytes(acting.free_percent), signal - wanted)


def _collect_decision(state: LadderState, now: float, signal: int, plan: EffectivePlan) -> Decision | None:
    rule = plan.thresholds.collect
    entry = plan.percent_bytes(rule.percent)
    if not state.collect_armed or signal < entry:
        return None
    if state.collected_at is not None and now < state.collected_at + rule.cooldown_seconds:
        return None
    cause = f"signal {_mib(signal)} is over the collect entry of {_mib(entry)}"
    return Decision(kind=ActionKind.COLLECT, level=state.level, bytes_to_free=0, goal_bytes=entry, cause=cause)


def _cause(level: Level, signal: int, plan: EffectivePlan) -> str:
    rung = _rungs(plan)[level]
    entry, release = plan.percent_bytes(rung.percent), plan.percent_bytes(rung.release_percent)
    if signal >= entry:
        return f"signal {_mib(signal)} is over the {level.lower()} entry of {_mib(entry)}"
    return f"signal {_mib(signal)} is still over the {level.lower()} release of {_mib(release)}"


def _mib(amount: int) -> str:
    return f"{amount / MIB:.1f} MiB"
