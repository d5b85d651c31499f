"""What actions free and how long they take, learned from those that were carried out.

Pure. Does not cover which actions are decided (`simulation`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from membudget_contract.recording import RecordedAction
from membudget_contract.sidecar_api import ActionKind


@dataclass(frozen=True, slots=True)
class Effect:
    """Of one kind of action. `measured` is how many were looked at; 0: an assumption."""

    share: float
    """Freed bytes by asked bytes."""
    seconds: float
    measured: int = 0


ASSUMED: Final[Mapping[ActionKind, Effect]] = {
    ActionKind.EVICT: Effect(1.0, 0.1),
    ActionKind.SPILL: Effect(1.0, 0.5),
}
NOTHING: Final = Effect(0.0, 0.1)
"""Of a Cleanup or a Collect nothing can be expected: it depends on what lies around."""


@dataclass(frozen=True, slots=True)
class Effects:
    """By kind; what was never carried out is assumed."""

    learned: Mapping[ActionKind, Effect] = field(default_factory=dict[ActionKind, Effect])

    @property
    def assumed(self) -> tuple[ActionKind, ...]:
        """The kinds that a rung may take and of which none was carried out."""
        return tuple(kind for kind in (*ASSUMED, ActionKind.CLEANUP, ActionKind.COLLECT) if kind not in self.learned)

    def of(self, kind: ActionKind) -> Effect:
        """What to expect of an action of this kind."""
        return self.learned.get(kind) or ASSUMED.get(kind, NOTHING)


def learn_effects(actions: Iterable[RecordedAction]) -> Effects:
    """Medians over the actions whose effect was read; one that found nothing left says nothing about its kind."""
    by_kind: dict[ActionKind, list[RecordedAction]] = {}
    for action in actions:
        if action.record.freed_bytes is not None and not action.record.exhausted:
            by_kind.setdefault(action.record.kind, []).append(action)
    return Effects({kind: _effect(of_kind) for kind, of_kind in by_kind.items()})


def _effect(actions: list[RecordedAction]) -> Effect:
    shares = [max(0, action.record.freed_bytes or 0) / max(1, action.record.asked_bytes) for action in actions]
    seconds = [max(0.0, action.ended_at - action.decided_at) for action in actions]
    return Effect(statistics.median(shares), statistics.median(seconds), len(actions))
