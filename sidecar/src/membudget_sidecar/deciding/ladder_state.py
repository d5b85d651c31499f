"""What the ladder is told, what it decides, and all that it remembers between two looks.

Plain values. Does not decide (`ladder`), nor know when a rung is entered (`entries`) or backed off from (`back_off`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from membudget_contract.plan import EffectivePlan
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level
from membudget_sidecar.deciding.back_off import BackOff

NEVER: Final = -float("inf")


@dataclass(frozen=True, slots=True)
class Observation:
    """One look: `now` in monotonic seconds; None is unknown, never zero.

    `limit_bytes` is the container's live limit, `seconds_to_limit` when the trend meets it, None too where the trend
    does not; `evictable_bytes` is what the engine may still give back; `signal_source` the files that were read.
    """

    now: float
    signal_bytes: int | None
    unmanaged_bytes: int | None
    limit_bytes: int | None = None
    seconds_to_limit: float | None = None
    evictable_bytes: int | None = None
    signal_source: str | None = None


class EntryKind(enum.StrEnum):
    """By what a rung is entered: a share of the budget, or a distance to the container's limit."""

    PERCENT = "percent"
    HEADROOM = "headroom"
    SECONDS_TO_LIMIT = "secondsToLimit"


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
    escalates_to: Level | None = None
    """The rung that runs if this one frees too little; None: there is no other action above it."""
    observation: Observation | None = None
    """The look that caused it."""
    ruling: Level | None = None
    """The rung whose reason it is, below `level` after an escalation; None: `level` itself."""


@dataclass(frozen=True, slots=True)
class LastAction:
    """When and how a rung's last action ended, and whether it helped out a rung below."""

    at: float
    status: ActionStatus
    helped_out: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """The plan whose entries still hold after its total was lowered, and until when at the latest."""

    plan: EffectivePlan
    until: float


@dataclass(frozen=True, slots=True)
class LadderState:
    """All that the ladder remembers. Times are monotonic seconds."""

    level: Level = Level.NORMAL
    held_by: frozenset[EntryKind] = frozenset({EntryKind.PERCENT})
    """The entries through which the level was reached and that it has not left since."""
    unreleased_at: float = NEVER
    """When the level was last over one of its release figures."""
    transitions: int = 0
    in_flight: Decision | None = None
    last_actions: Mapping[Level, LastAction] = field(default_factory=dict[Level, LastAction])
    escalated_to: Level | None = None
    """The rung that acts next without its cool-down, because the one before freed too little."""
    exhausted_at: float | None = None
    only_critical_left: bool = False
    """Nothing is left that may be given back (`OnlyCriticalLeft`): admission refuses, and the ladder only pauses."""
    back_offs: Mapping[ActionKind, BackOff] = field(default_factory=dict[ActionKind, BackOff])
    collect_armed: bool = True
    collected_at: float | None = None
    unmanaged_low_bytes: int | None = None
    """The least unmanaged bytes seen since the last collect; growth is measured from here."""
    passage: Passage | None = None
