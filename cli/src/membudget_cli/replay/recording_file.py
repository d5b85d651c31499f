"""Reading a recording: sessions of looks, plans and actions.

Covers: one file, line by line, checked. Does not write it (the sidecar's `recorder`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from membudget_contract.decoding import decode_json
from membudget_contract.policy import Signal
from membudget_contract.recording import (
    RECORDING_VERSION,
    RecordedAction,
    RecordedLine,
    RecordedLook,
    RecordedPlan,
    RecordedStart,
)


class RecordingInvalid(Exception):
    """A file that is no recording, names the line and what is wrong with it."""


@dataclass(slots=True)
class Session:
    """One life of a sidecar, in the order of its clock."""

    started_at: float
    """Unix seconds."""
    steps: list[RecordedPlan | RecordedLook] = field(default_factory=list[RecordedPlan | RecordedLook])
    actions: list[RecordedAction] = field(default_factory=list[RecordedAction])

    @property
    def first_look_at(self) -> float:
        """By the session's clock."""
        return next(step.at for step in self.steps if isinstance(step, RecordedLook))

    @property
    def signals(self) -> frozenset[Signal]:
        """Of the looks: a plan that was replaced before the first one, as a policy replaces the built-in, has none."""
        found: set[Signal] = set()
        plan = None
        for step in self.steps:
            if isinstance(step, RecordedPlan):
                plan = step.plan
            elif plan is not None:
                found.add(plan.signal)
        return frozenset(found)

    @property
    def looks(self) -> int:
        """How many looks it holds."""
        return sum(isinstance(step, RecordedLook) for step in self.steps)


def read_recording(path: Path) -> list[Session]:
    """Every session of the file that holds a look; a torn last line, as a SIGKILL leaves it, is left out.

    Raises:
        RecordingInvalid: a line is no line of a recording, or of a newer version.
        OSError: the file cannot be read.
    """
    sessions: list[Session] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):
                break
            line = _parsed(text, number)
            if isinstance(line, RecordedStart):
                sessions.append(Session(line.started_at))
            elif not sessions:
                raise RecordingInvalid(f"line {number}: a recording begins with a start")
            elif isinstance(line, RecordedAction):
                sessions[-1].actions.append(line)
            else:
                sessions[-1].steps.append(line)
    return [session for session in sessions if session.looks]


def _parsed(text: bytes, number: int) -> RecordedLine:
    try:
        line: RecordedLine = decode_json(text, RecordedLine)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise RecordingInvalid(f"line {number}: {error}") from None
    if isinstance(line, RecordedStart) and line.version > RECORDING_VERSION:
        raise RecordingInvalid(
            f"line {number}: version {line.version} is newer than the {RECORDING_VERSION} known here"
        )
    return line
