"""The recorder: what it writes is what a replay reads, and a disk that fails costs the recording alone."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.quantities import MIB
from membudget_contract.recording import RecordedAction, RecordedLine, RecordedLook, RecordedPlan, RecordedStart
from membudget_contract.resolve import resolve
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus, Level
from membudget_sidecar.deciding.ladder_state import Decision, Observation
from membudget_sidecar.recorder import Recorder

PLAN = resolve(compile_policy(None), environment={}, limit=None)
LOOK = Observation(10.0, 100 * MIB, 60 * MIB, limit_bytes=200 * MIB, evictable_bytes=40 * MIB)
RECORD = ActionRecord(
    id=1, kind=ActionKind.EVICT, cause="", status=ActionStatus.DONE, plan_hash="", asked_bytes=5, queued_at=0.0
)


def recorder(path: Path, **bounds: int) -> Recorder:
    """A recorder whose wall clock stands still."""
    return Recorder(path, wall=lambda: 1e9, **bounds)


def lines(path: Path) -> list[RecordedLine]:
    """All that was written, whole lines only."""
    return [msgspec.json.decode(line, type=RecordedLine) for line in path.read_bytes().splitlines()]


def test_looks_plans_and_actions_are_written_in_order(tmp_path: Path) -> None:
    """R-S03: everything that the ladder was shown, so that it decides the same again."""
    recording = recorder(tmp_path / "r")
    decision = Decision(ActionKind.EVICT, Level.HARD, 5, 0, "", observation=LOOK)
    recording.plan(PLAN, 9.0)
    recording.look(LOOK)
    recording.look(Observation(10.1, None, None))
    recording.action(decision, RECORD, 10.5)
    recording.close()
    assert lines(tmp_path / "r") == [
        RecordedStart(version=1, started_at=1e9),
        RecordedPlan(at=9.0, plan=PLAN),
        RecordedLook(
            at=10.0,
            signal_bytes=100 * MIB,
            unmanaged_bytes=60 * MIB,
            limit_bytes=200 * MIB,
            evictable_bytes=40 * MIB,
        ),
        RecordedLook(at=10.1, signal_bytes=None, unmanaged_bytes=None, limit_bytes=None, evictable_bytes=None),
        RecordedAction(decided_at=10.0, ended_at=10.5, level=Level.HARD, record=RECORD),
    ]


def test_a_second_life_is_appended(tmp_path: Path) -> None:
    """R-S03: a sidecar that is started again does not wipe what led there."""
    for _ in range(2):
        recorder(tmp_path / "r").close()
    assert lines(tmp_path / "r") == [RecordedStart(version=1, started_at=1e9)] * 2


def test_what_was_written_a_second_ago_survives_a_kill(tmp_path: Path) -> None:
    """R-S03: nobody closes the file of a process that is killed."""
    recording = recorder(tmp_path / "r")
    for tenth in range(21):
        recording.look(Observation(10 + tenth / 10, 1, 1))
    assert len(lines(tmp_path / "r")) >= 12
    recording.close()


def test_a_recording_ends_at_its_bound_also_over_several_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-S11: a disk that fills up slowly is found out too late."""
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            recording = recorder(tmp_path / "r", most_bytes=1000)
            for _ in range(10):
                recording.look(LOOK)
            recording.close()
    assert (tmp_path / "r").stat().st_size <= 1000
    assert {message.rpartition(" is ")[2] for message in caplog.messages} == {"full and ends here"}


def test_a_full_disk_ends_the_recording_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """R-S11: the loop that calls it goes on, and says so once."""
    recording = recorder(Path("/dev/full"))
    with caplog.at_level(logging.WARNING):
        for second in range(5):
            recording.look(Observation(float(second), 1, 1))
        recording.close()
    assert caplog.messages[0] == "the recording /dev/full ends here: No space left on device"
    assert len(caplog.messages) <= 2


def test_a_folder_that_is_missing_is_said_at_the_start(tmp_path: Path) -> None:
    """R-S03: a person gave a wrong path, and is told before an hour was not recorded."""
    with pytest.raises(FileNotFoundError):
        recorder(tmp_path / "none" / "r")
