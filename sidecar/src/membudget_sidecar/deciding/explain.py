"""The ladder in words: for each rung why it acts or does not (R-S03, R-S06).

Pure: the same state, look and plan give the same sentences. Covers what the ladder would do at that look. Does not
decide (`ladder`) nor tell what was done (`actions` keeps records).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from membudget_contract.explanation import CollectExplanation, Distance, Explanation, RungExplanation
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind, Level
from membudget_sidecar.deciding.entries import STEADY_SECONDS, Entry, collect_reason, entries, mib, rungs, why
from membudget_sidecar.deciding.ladder import (
    backed_off_until,
    exhausted_until,
    kind_at,
    rests_until,
    ruling_level,
    step,
)
from membudget_sidecar.deciding.ladder_state import Decision, EntryKind, LadderState, Observation

_NEVER: Final = -float("inf")
_UNKNOWN: Final = "the signal is unknown, and nothing is decided on that"


@dataclass(frozen=True, slots=True)
class _Look:
    """What `step` made of the look; `plan` is the one that rules, `decision` what is done now."""

    state: LadderState
    observation: Observation
    plan: EffectivePlan
    ruling: Level
    decision: Decision | None
    running: Decision | None
    """In flight before the look."""

    def seconds(self, until: float) -> float | None:
        """From the look to a time that is still to come."""
        return until - self.observation.now if until > self.observation.now else None


def explain(state: LadderState, observation: Observation, plan: EffectivePlan) -> Explanation:
    """Why the ladder acts or does not. `state` is the one after the last look, which is explained again.

    A decision of that very look is told as acting, not as in flight already.
    """
    if state.in_flight is not None and state.in_flight.observation == observation:
        look = _look(state, observation, plan, state.in_flight, None)
    else:
        after, decisions = step(state, observation, plan)
        look = _look(after, observation, plan, decisions[0] if decisions else None, state.in_flight)
    explained = tuple(_rung(look, level) for level in rungs(look.plan))
    collect = _collect(look)
    return Explanation(
        mode=plan.mode,
        level=look.state.level,
        ruling=look.ruling,
        signal_bytes=observation.signal_bytes,
        signal_source=observation.signal_source,
        limit_bytes=observation.limit_bytes,
        seconds_to_limit=observation.seconds_to_limit,
        unmanaged_bytes=observation.unmanaged_bytes,
        evictable_bytes=observation.evictable_bytes,
        in_flight=look.running.kind if look.running else None,
        only_critical_left=look.state.only_critical_left,
        passage_seconds=look.seconds(look.state.passage.until) if look.state.passage else None,
        rungs=explained,
        collect=collect,
        reason=_whole(look, explained, collect, plan.mode),
    )


def _look(
    state: LadderState,
    observation: Observation,
    plan: EffectivePlan,
    decision: Decision | None,
    running: Decision | None,
) -> _Look:
    ruled_by = state.passage.plan if state.passage else plan
    ruling = Level.NORMAL
    if observation.signal_bytes is not None:
        ruling, _ = ruling_level(state, observation, observation.signal_bytes, ruled_by)
    return _Look(state, observation, ruled_by, ruling, decision, running)


def _rung(look: _Look, level: Level) -> RungExplanation:
    signal = look.observation.signal_bytes
    found = () if signal is None else entries(level, look.observation, signal, look.plan)
    acts = look.decision is not None and look.decision.kind is not ActionKind.COLLECT and look.decision.level is level
    reason, until = _rung_reason(look, level, acts=acts)
    return RungExplanation(
        level=level,
        action=kind_at(level, look.observation, look.plan),
        distances=tuple(_distance(look, level, kind, found) for kind in _asked(look.plan, level)),
        entered=any(entry.entered for entry in found),
        acts=acts,
        reason=reason,
        waits_seconds=look.seconds(until),
    )


def _rung_reason(look: _Look, level: Level, *, acts: bool) -> tuple[str, float]:
    """One sentence, and until when a pause holds; a time that is past is none."""
    if look.observation.signal_bytes is None:
        return _UNKNOWN, _NEVER
    if acts and look.decision is not None:
        return f"acts now: {look.decision.cause}", _NEVER
    if level.rank < look.ruling.rank:
        return f"{look.ruling} stands above it and acts in its place", _NEVER
    if level.rank > look.ruling.rank and level is not look.state.escalated_to:
        return _below(look, level, look.observation.signal_bytes), _NEVER
    return _held_back(look, level, kind_at(level, look.observation, look.plan))


def _held_back(look: _Look, level: Level, kind: ActionKind) -> tuple[str, float]:
    state, now = look.state, look.observation.now
    if look.running is not None:
        return f"{look.running.kind} is in work: {look.running.cause}", _NEVER
    exhausted = exhausted_until(state, look.observation)
    if now < exhausted:
        left = "only Critical data is left (OnlyCriticalLeft)" if state.only_critical_left else "nothing was left"
        return f"{left}, so {kind} would free nothing; tried again after a pause", exhausted
    backed_off = backed_off_until(state, look.ruling, kind)
    if now < backed_off:
        return f"{kind} did harm the last time and is backed off from", backed_off
    rests = rests_until(state, level, look.plan)
    if now < rests and level is not state.escalated_to:
        last = state.last_actions[level]
        return f"its last action ended {last.status} {now - last.at:.1f} s ago and its cool-down is not over", rests
    return f"{look.decision.kind} of another rung goes first" if look.decision else "another action goes first", _NEVER


def _below(look: _Look, level: Level, signal: int) -> str:
    if level.rank <= look.state.level.rank:
        return (
            "under its release, so it does not act; the level is kept until the signal is clearly below it, "
            f"or has stayed there for {STEADY_SECONDS / 60:.0f} min"
        )
    entry = look.plan.percent_bytes(rungs(look.plan)[level].percent)
    return f"signal {mib(signal)} is under its entry of {mib(entry)}{_distances_too(look, level)}"


def _distances_too(look: _Look, level: Level) -> str:
    rung = rungs(look.plan)[level]
    if rung.headroom_bytes is None and rung.seconds_to_limit is None:
        return ""
    if look.observation.limit_bytes is None:
        return ", and no limit is known that it could be too close to"
    return ", and the limit is far enough"


def _asked(plan: EffectivePlan, level: Level) -> tuple[EntryKind, ...]:
    rung = rungs(plan)[level]
    asked = {
        EntryKind.PERCENT: True,
        EntryKind.HEADROOM: rung.headroom_bytes is not None,
        EntryKind.SECONDS_TO_LIMIT: rung.seconds_to_limit is not None,
    }
    return tuple(kind for kind, is_asked in asked.items() if is_asked)


def _distance(look: _Look, level: Level, kind: EntryKind, found: tuple[Entry, ...]) -> Distance:
    rung = rungs(look.plan)[level]
    entry_bytes = look.plan.percent_bytes(rung.percent) if kind is EntryKind.PERCENT else None
    for entry in found:
        if entry.kind is kind:
            if kind is EntryKind.HEADROOM:
                entry_bytes = (look.observation.limit_bytes or 0) - (rung.headroom_bytes or 0)
            return Distance(
                by=kind,
                entry_bytes=entry_bytes,
                release_bytes=entry.release_bytes,
                entered=entry.entered,
                released=entry.released,
                reason=why(kind, level, look.observation, look.observation.signal_bytes or 0, look.plan),
            )
    release = look.plan.percent_bytes(rung.release_percent) if kind is EntryKind.PERCENT else None
    reason = (
        _UNKNOWN if look.observation.signal_bytes is None else "limit or forecast is unknown, and that says nothing"
    )
    return Distance(
        by=kind, entry_bytes=entry_bytes, release_bytes=release, entered=False, released=False, reason=reason
    )


def _collect(look: _Look) -> CollectExplanation:
    signal, rule, state = look.observation.signal_bytes, look.plan.thresholds.collect, look.state
    entry = look.plan.percent_bytes(rule.percent)
    why = None if signal is None else collect_reason(look.observation, signal, look.plan)
    acts = look.decision is not None and look.decision.kind is ActionKind.COLLECT
    ready = -float("inf") if state.collected_at is None else state.collected_at + rule.cooldown_seconds
    until = -float("inf")
    if signal is None:
        reason = _UNKNOWN
    elif acts and look.decision is not None:
        reason = f"acts now: {look.decision.cause}"
    elif why is None:
        reason = f"signal {mib(signal)} is under its entry of {mib(entry)}"
    elif not state.collect_armed:
        reason = "collected since its entry was crossed, and unmanaged bytes have not grown by 5 points since"
    elif look.observation.now < ready:
        reason, until = "its cool-down is not over", ready
    else:
        reason = "another action goes first"
    return CollectExplanation(
        entry_bytes=entry, entered=why is not None, acts=acts, reason=reason, waits_seconds=look.seconds(until)
    )


def _whole(look: _Look, explained: tuple[RungExplanation, ...], collect: CollectExplanation, mode: Mode) -> str:
    observed = " (Observe: recorded, not done)" if mode is Mode.OBSERVE else ""
    if look.decision is not None:
        return f"{look.decision.kind}{observed}: {look.decision.cause}"
    if look.observation.signal_bytes is None:
        return _UNKNOWN
    if look.running is not None:
        return f"{look.running.kind} is in work{observed}: {look.running.cause}"
    if look.ruling is Level.NORMAL:
        return f"nothing to do: no rung is over its release; garbage: {collect.reason}"
    ruling = next(rung for rung in explained if rung.level is look.ruling)
    return f"{look.ruling} does not act{observed}: {ruling.reason}"
