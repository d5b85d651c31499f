"""A ladder driven by hand: a plan of 100 MiB, so that figures read as percents, and a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from membudget_contract.compile import compile_policy
from membudget_contract.plan import EffectivePlan, Rung
from membudget_contract.quantities import MIB
from membudget_contract.resolve import resolve
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.ladder import finished, plan_changed, step
from membudget_sidecar.deciding.ladder_state import Decision, LadderState, Observation

POINT = MIB
"""One percent of PLAN's total, so that the figures of the tests read as percents."""

PLAN = resolve(compile_policy(None), environment={"MEMBUDGET_TOTAL": "100Mi"}, limit=None)


def with_rung(name: str, plan: EffectivePlan = PLAN, **changes: object) -> EffectivePlan:
    """A plan with some fields of one rung, or of `collect`, changed."""
    rung = msgspec.structs.replace(getattr(plan.thresholds, name), **changes)
    return msgspec.structs.replace(plan, thresholds=msgspec.structs.replace(plan.thresholds, **{name: rung}))


WITHOUT_COLLECT = with_rung("collect", percent=1000)
"""For tests that pass the entry of garbage collection on their way."""


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

    def look(
        self,
        points: float | None,
        *,
        unmanaged: int | None = None,
        limit: int | None = None,
        seconds: float | None = None,
        evictable: int | None = None,
    ) -> Observation:
        """A look of now; signal, unmanaged, limit and evictable in percent of PLAN's total."""
        return Observation(
            now=self.now,
            signal_bytes=None if points is None else int(points * POINT),
            unmanaged_bytes=None if unmanaged is None else unmanaged * POINT,
            limit_bytes=None if limit is None else limit * POINT,
            seconds_to_limit=seconds,
            evictable_bytes=None if evictable is None else evictable * POINT,
        )

    def see(self, points: float | None, *, after: float = 0.125, **figures: Any) -> tuple[Decision, ...]:
        """What is decided at a look that much later; `figures` as of `look`."""
        self.now += after
        self.state, decisions = step(self.state, self.look(points, **figures), self.plan)
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

    def acts(self, points: float, *, after: float = 0.125, **figures: Any) -> list[tuple[ActionKind, Level]]:
        """Kind and rung of what is decided at `points`."""
        return [(decision.kind, decision.level) for decision in self.see(points, after=after, **figures)]


CLEANUP = (ActionKind.CLEANUP, Level.SOFT)
SPILL = (ActionKind.SPILL, Level.HARD)
EVICT = (ActionKind.EVICT, Level.EMERGENCY)
