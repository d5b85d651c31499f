"""A prediction held against what was done.

Pure. Covers: which predicted actions took place, by kind and rung within a tolerance of time. Does not predict
(`simulation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from membudget_cli.replay.recording_file import Session
from membudget_cli.replay.simulation import SimulatedAction
from membudget_contract.sidecar_api import ActionKind, ActionStatus, Level

TOLERANCE_SECONDS: Final = 2.0
"""Two looks of the slow pace: one run is never timed like another."""


class Deed(NamedTuple):
    """One action by what tells it from others."""

    at: float
    """Seconds since the beginning that both loads have in common."""
    level: Level
    kind: ActionKind


@dataclass(frozen=True, slots=True)
class Comparison:
    """Predicted and done, matched one to one."""

    matched: int
    predicted: int
    done: int

    @property
    def share(self) -> float:
        """Of the larger number, so that neither silence nor noise is rewarded; 1 when both are none."""
        larger = max(self.predicted, self.done)
        return self.matched / larger if larger else 1.0


def deeds_of(session: Session, beginning: float) -> list[Deed]:
    """What was really done from the beginning on, by the session's clock; what Observe decided was not."""
    return [
        Deed(action.decided_at - beginning, action.level, action.record.kind)
        for action in session.actions
        if action.record.status is not ActionStatus.OBSERVED and action.decided_at >= beginning
    ]


def predicted_deeds(actions: Sequence[SimulatedAction], beginning: float) -> list[Deed]:
    """The same of a simulation."""
    return [Deed(action.at - beginning, action.level, action.kind) for action in actions if action.at >= beginning]


def compare(predicted: Sequence[Deed], done: Sequence[Deed], tolerance: float = TOLERANCE_SECONDS) -> Comparison:
    """Match each deed with the earliest prediction of the same kind and rung that is near enough in time."""
    left = sorted(predicted)
    matched = 0
    for deed in sorted(done):
        for place, candidate in enumerate(left):
            if (candidate.level, candidate.kind) == deed[1:] and abs(candidate.at - deed.at) <= tolerance:
                del left[place]
                matched += 1
                break
    return Comparison(matched, len(predicted), len(done))
