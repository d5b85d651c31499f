"""What a sidecar writes down of its looks and actions, so that another policy can be tried on them afterwards.

Covers: the lines of a recording, one JSON object each. A session begins with a `RecordedStart`; times in it are seconds
of that sidecar's monotonic clock. Does not write (the sidecar's `recorder`) nor replay (the command line's `replay`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import EffectivePlan, Message
from membudget_contract.sidecar_api import ActionRecord, Level

RECORDING_VERSION: Final = 1


class RecordedStart(Message, frozen=True, kw_only=True, tag="start"):
    """A sidecar began to record: all before it was another session."""

    contract: str = CONTRACT_VERSION
    version: int
    started_at: float
    """Unix seconds."""


class RecordedPlan(Message, frozen=True, kw_only=True, tag="plan"):
    """The plan in force from here on."""

    at: float
    plan: EffectivePlan


class RecordedLook(Message, frozen=True, kw_only=True, tag="look"):
    """What the ladder was shown; bytes, None where it was not known."""

    at: float
    signal_bytes: int | None
    unmanaged_bytes: int | None
    limit_bytes: int | None
    evictable_bytes: int | None


class RecordedAction(Message, frozen=True, kw_only=True, tag="action"):
    """An action that the ladder decided, once it had ended."""

    decided_at: float
    ended_at: float
    level: Level
    """The rung that acted."""
    record: ActionRecord


RecordedLine = RecordedStart | RecordedPlan | RecordedLook | RecordedAction
