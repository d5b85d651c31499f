"""A recorded load under a policy: what the ladder would do.

Pure. Covers: the load without the actions that were taken, and with those that would be. Runs the sidecar's own
ladder; what an action frees comes from `effects`. Does not cover reading (`recording_file`).

The model: unmanaged bytes are as recorded. Managed bytes grow and shrink as recorded, but are admitted only within the
room, as the runtime does, and lose what actions free. What a recorded action freed is given back to the load first.
A sidecar looks again when an action has ended: what it saw then lies on the line between two recorded looks.
Where a session never knew what is managed, as of a process that is only observed, all of it is unmanaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from membudget_cli.replay.effects import Effects
from membudget_cli.replay.recording_file import Session
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import Mode
from membudget_contract.recording import RecordedLook
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.ladder import finished, initial_state, plan_changed, step
from membudget_sidecar.deciding.ladder_state import Decision, Observation
from membudget_sidecar.deciding.trend import CONFIDENT, Trend
from membudget_sidecar.deciding.verification import judge
from membudget_sidecar.kernel.reading import Absent


@dataclass(frozen=True, slots=True)
class SimulatedAction:
    """One action that the policy would take; `at` by the session's clock, bytes."""

    at: float
    level: Level
    kind: ActionKind
    asked_bytes: int
    freed_bytes: int
    status: ActionStatus
    cause: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy on a session."""

    actions: tuple[SimulatedAction, ...]
    peak_bytes: int | None
    """Of the signal; None when it was never known."""
    transitions: int
    unknown_looks: int


def simulate(session: Session, policy: EffectivePlan | None, effects: Effects) -> Outcome:
    """What would be done in a session; `policy` None: under the plans that were in force, as if they enforced."""
    simulation = _Simulation(session, effects)
    for recorded in session.steps:
        if isinstance(recorded, RecordedLook):
            simulation.look(recorded)
        else:
            simulation.plan(policy or recorded.plan, recorded.at)
    return simulation.outcome()


@dataclass(frozen=True, slots=True)
class _UnderWay:
    decision: Decision
    at: float
    ends_at: float


class _Simulation:
    def __init__(self, session: Session, effects: Effects) -> None:
        self._effects = effects
        self._recorded = _Recorded(session)
        self._plan: EffectivePlan | None = None
        self._state = initial_state()
        self._trend = Trend()
        self._under_way: _UnderWay | None = None
        self._previous: RecordedLook | None = None
        self._freed = 0
        """By simulated actions and refused admissions, of what the load would hold without any."""
        self._evictable = 0
        self._signal = 0
        self._peak: int | None = None
        self._unknown = 0
        self._actions: list[SimulatedAction] = []

    def plan(self, plan: EffectivePlan, now: float) -> None:
        plan = msgspec.structs.replace(plan, mode=Mode.ENFORCE)
        if self._plan is not None and plan != self._plan:
            self._state = plan_changed(self._state, self._plan, plan, now)
        self._plan = plan

    def look(self, recorded: RecordedLook) -> None:
        # One without duration ends with the next recorded look.
        while (last := self._under_way) is not None and last.at < last.ends_at < recorded.at:
            assert self._previous is not None, "an action is decided at a look"
            self._look(_between(self._previous, recorded, last.ends_at))
        self._look(recorded)
        self._previous = recorded

    def _look(self, recorded: RecordedLook) -> None:
        if self._plan is None:
            return
        self._end_action(recorded.at)
        load = self._recorded.load(recorded)
        if load is None:
            self._unknown += 1
        else:
            self._hold(load, self._plan)
        signal = None if load is None else self._signal
        observation = Observation(
            recorded.at,
            signal,
            None if load is None else load.unmanaged,
            limit_bytes=recorded.limit_bytes,
            seconds_to_limit=self._foreseen(recorded, signal),
            evictable_bytes=None if load is None else self._evictable,
        )
        self._state, decisions = step(self._state, observation, self._plan)
        for decision in decisions:
            ends_at = recorded.at + self._effects.of(decision.kind).seconds
            self._under_way = _UnderWay(decision, recorded.at, ends_at)

    def outcome(self) -> Outcome:
        return Outcome(tuple(self._actions), self._peak, self._state.transitions, self._unknown)

    def _hold(self, load: _Load, plan: EffectivePlan) -> None:
        """Managed bytes as the runtime would have them: what grows is admitted within the room only."""
        wanted = load.managed - self._freed
        if load.grew:
            room = plan.soft_entry_bytes - plan.room_margin_bytes - load.unmanaged
            wanted = min(wanted, max(room, load.managed - load.evictable))
        managed = max(0, wanted)
        self._freed = load.managed - managed
        self._evictable = max(0, load.evictable - self._freed)
        self._signal = load.unmanaged + managed
        self._peak = max(self._peak or 0, self._signal)

    def _foreseen(self, recorded: RecordedLook, signal: int | None) -> float | None:
        if signal is None or recorded.limit_bytes is None:
            return None
        self._trend.record(recorded.at, signal)
        forecast = self._trend.seconds_to(recorded.limit_bytes)
        if isinstance(forecast, Absent) or forecast.confidence < CONFIDENT:
            return None
        return forecast.seconds

    def _end_action(self, now: float) -> None:
        under_way = self._under_way
        if under_way is None or now < under_way.ends_at:
            return
        self._under_way = None
        decision = under_way.decision
        freed = min(int(self._effects.of(decision.kind).share * decision.bytes_to_free), self._evictable)
        exhausted = freed == self._evictable
        before = self._signal
        self._freed += freed
        self._evictable -= freed
        self._signal -= freed
        status = judge(decision.bytes_to_free, before, self._signal, decision.goal_bytes)
        self._state = finished(self._state, decision, status, exhausted, under_way.ends_at)
        self._actions.append(
            SimulatedAction(
                at=under_way.at,
                level=decision.level,
                kind=decision.kind,
                asked_bytes=decision.bytes_to_free,
                freed_bytes=freed,
                status=status,
                cause=decision.cause,
            )
        )


def _between(before: RecordedLook, after: RecordedLook, at: float) -> RecordedLook:
    """A look that was not recorded; what one of the two does not know is not known."""
    share = (at - before.at) / (after.at - before.at)

    def on_the_line(first: int | None, second: int | None) -> int | None:
        return None if first is None or second is None else first + round(share * (second - first))

    return RecordedLook(
        at=at,
        signal_bytes=on_the_line(before.signal_bytes, after.signal_bytes),
        unmanaged_bytes=on_the_line(before.unmanaged_bytes, after.unmanaged_bytes),
        limit_bytes=after.limit_bytes,
        evictable_bytes=on_the_line(before.evictable_bytes, after.evictable_bytes),
    )


@dataclass(frozen=True, slots=True)
class _Load:
    """What the process would hold at a look if nothing had been taken from it; bytes."""

    unmanaged: int
    managed: int
    evictable: int
    grew: bool


class _Recorded:
    """Recorded looks with what recorded actions freed given back."""

    def __init__(self, session: Session) -> None:
        self._freed_at = iter(_freed(session))
        self._next = next(self._freed_at, None)
        self._given_back = 0
        self._last: _Load | None = None
        self._last_unmanaged: int | None = None
        looks = (step for step in session.steps if isinstance(step, RecordedLook))
        self._nobody_manages = all(look.unmanaged_bytes is None for look in looks)
        """Nothing of it can be given back then."""

    def load(self, look: RecordedLook) -> _Load | None:
        """None while the signal, or what is managed of it, was not known."""
        while self._next is not None and self._next[0] <= look.at:
            self._given_back += self._next[1]
            self._next = next(self._freed_at, None)
        known = look.signal_bytes if self._nobody_manages else look.unmanaged_bytes
        unmanaged = self._last_unmanaged if known is None else known
        self._last_unmanaged = unmanaged
        if look.signal_bytes is None or unmanaged is None:
            return None
        managed = max(0, look.signal_bytes - unmanaged) + self._given_back
        evictable = min(managed, (look.evictable_bytes or 0) + self._given_back)
        grew = self._last is not None and managed > self._last.managed
        self._last = _Load(unmanaged, managed, evictable, grew)
        return self._last


def _freed(session: Session) -> Iterator[tuple[float, int]]:
    """When recorded actions had freed how much of what the engine owned."""
    for action in sorted(session.actions, key=lambda action: action.ended_at):
        record = action.record
        if record.owned_before_bytes is not None and record.owned_after_bytes is not None:
            yield action.ended_at, max(0, record.owned_before_bytes - record.owned_after_bytes)
