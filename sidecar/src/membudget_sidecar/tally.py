"""Counts over the life of the sidecar, for metrics and status.

Covers: plain numbers, written by the loop's thread alone. Does not export them (`collector`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus


@dataclass(slots=True)
class Tally:
    """Other threads read it; they copy a counter (`list(counter.items())`) before they walk it."""

    samples: int = 0
    sample_cpu_seconds: float = 0.0
    absent_readings: Counter[str] = field(default_factory=Counter[str])
    actions: Counter[tuple[ActionKind, ActionStatus]] = field(default_factory=Counter[tuple[ActionKind, ActionStatus]])
    harms: Counter[ActionKind] = field(default_factory=Counter[ActionKind])
    """Of actions that were counted as effective when they ended."""
    freed_bytes: Counter[ActionKind] = field(default_factory=Counter[ActionKind])

    def count_sample(self, *, known: bool) -> None:
        """One look at the signal."""
        self.samples += 1
        self.absent_readings["signal"] += not known

    def count_action(self, record: ActionRecord) -> None:
        """One action that ended, or that showed harm since; what an effective one freed is the fall of the signal."""
        if record.status is ActionStatus.HARMFUL:
            self.harms[record.kind] += 1
            return
        self.actions[record.kind, record.status] += 1
        if record.status is ActionStatus.EFFECTIVE:
            self.freed_bytes[record.kind] += max(0, record.freed_bytes or 0)
