"""Writes a recording: what the ladder was shown, under which plan, and what came of its decisions.

Covers: lines into one file, up to a bound. Does not cover what they say (`membudget_contract.recording`) nor trying
another policy on them (the command line's `replay`). For one thread. A disk that fails or fills ends the recording,
never the watching.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from membudget_contract.plan import EffectivePlan
from membudget_contract.recording import (
    RECORDING_VERSION,
    RecordedAction,
    RecordedLine,
    RecordedLook,
    RecordedPlan,
    RecordedStart,
)
from membudget_contract.sidecar_api import ActionRecord
from membudget_sidecar.deciding.ladder_state import Decision, Observation

MOST_BYTES: Final = 64 << 20
"""Five days at the ten-second interval, fourteen hours at ten looks a second."""
FLUSH_SECONDS: Final = 1.0
"""What a SIGKILL may cost of it."""

log = logging.getLogger(__name__)


class Recorder:
    """One session, appended to a file; a reader takes each session for itself."""

    def __init__(self, path: Path, *, wall: Callable[[], float], most_bytes: int = MOST_BYTES) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._file = path.open("ab")
        self._left = most_bytes - self._file.tell()
        self._flushed_at = -float("inf")
        self._ended = False
        self._write(RecordedStart(version=RECORDING_VERSION, started_at=wall()), now=0.0)

    def plan(self, plan: EffectivePlan, now: float) -> None:
        """Another plan is in force."""
        self._write(RecordedPlan(at=now, plan=plan), now)

    def look(self, seen: Observation) -> None:
        """One look."""
        look = RecordedLook(
            at=seen.now,
            signal_bytes=seen.signal_bytes,
            unmanaged_bytes=seen.unmanaged_bytes,
            limit_bytes=seen.limit_bytes,
            evictable_bytes=seen.evictable_bytes,
        )
        self._write(look, seen.now)

    def action(self, decision: Decision, record: ActionRecord, now: float) -> None:
        """An action of the ladder ended."""
        decided_at = decision.observation.now if decision.observation else now
        ended = RecordedAction(decided_at=decided_at, ended_at=now, level=decision.level, record=record)
        self._write(ended, now)

    def close(self) -> None:
        """Write out what is held back."""
        self._ended = True
        try:
            self._file.close()
        except OSError as error:
            log.warning("the end of the recording %s was lost: %s", self._path, error.strerror)

    def _write(self, line: RecordedLine, now: float) -> None:
        if self._ended:
            return
        text = msgspec.json.encode(line) + b"\n"
        self._left -= len(text)
        if self._left < 0:
            log.warning("the recording %s is full and ends here", self._path)
            self.close()
            return
        try:
            self._file.write(text)
            if now - self._flushed_at >= FLUSH_SECONDS:
                self._flushed_at = now
                self._file.flush()
        except OSError as error:
            log.warning("the recording %s ends here: %s", self._path, error.strerror)
            self.close()
