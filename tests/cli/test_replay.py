"""Replay in simulated time: recordings made here, line by line, and what a policy would have done with them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_cli.__main__ import main
from membudget_cli.replay.comparison import Deed, compare
from membudget_cli.replay.effects import ASSUMED, NOTHING, Effect, Effects, learn_effects
from membudget_cli.replay.recording_file import RecordingInvalid, Session, read_recording
from membudget_cli.replay.simulation import simulate
from membudget_contract.compile import compile_policy
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import parse_policy
from membudget_contract.quantities import MIB
from membudget_contract.recording import (
    RECORDING_VERSION,
    RecordedAction,
    RecordedLine,
    RecordedLook,
    RecordedPlan,
    RecordedStart,
)
from membudget_contract.resolve import resolve
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus, Level

PLAN = resolve(compile_policy(None), environment={}, limit=None)
"""150 MiB: soft from 120, hard from 139.5, emergency from 147 MiB; the room ends at 117."""


NAMED = {"apiVersion": "membudget.dev/v1alpha1", "kind": "MemoryPolicy", "metadata": {"name": "a"}}


def look(at: float, unmanaged: int | None, managed: int = 0, *, evictable: int | None = None) -> RecordedLook:
    """One look; MiB."""
    return RecordedLook(
        at=at,
        signal_bytes=None if unmanaged is None else (unmanaged + managed) * MIB,
        unmanaged_bytes=None if unmanaged is None else unmanaged * MIB,
        limit_bytes=None,
        evictable_bytes=(managed if evictable is None else evictable) * MIB,
    )


def action(kind: ActionKind, at: float, *, asked: int, freed: int, seconds: float = 0.25) -> RecordedAction:
    """One action that was carried out; MiB."""
    record = ActionRecord(
        id=1,
        kind=kind,
        cause="",
        status=ActionStatus.EFFECTIVE,
        plan_hash="",
        asked_bytes=asked * MIB,
        signal_before_bytes=140 * MIB,
        signal_after_bytes=(140 - freed) * MIB,
        owned_before_bytes=freed * MIB,
        owned_after_bytes=0,
        queued_at=at,
    )
    return RecordedAction(decided_at=at, ended_at=at + seconds, level=Level.SOFT, record=record)


def session(*looks: RecordedLook, plan: EffectivePlan = PLAN) -> Session:
    """A session of these looks under one plan."""
    return Session(0.0, [RecordedPlan(at=0.0, plan=plan), *looks])


def kinds(recorded: Session, effects: Effects) -> list[ActionKind]:
    """What the ladder would do."""
    return [done.kind for done in simulate(recorded, None, effects).actions]


EVICTS = Effects({ActionKind.CLEANUP: Effect(0.0, 0.1, 1), ActionKind.SPILL: Effect(1.0, 0.1, 1)})


def test_a_load_below_the_thresholds_is_left_alone() -> None:
    """R-T03: nothing is predicted where nothing is due."""
    recorded = session(*(look(float(second), 60, 40) for second in range(100)))
    outcome = simulate(recorded, None, Effects())
    assert (outcome.actions, outcome.transitions, outcome.peak_bytes) == ((), 0, 100 * MIB)


def test_growth_that_nobody_manages_takes_the_rungs_that_the_ladder_takes() -> None:
    """R-T03: collect at 75 %, Cleanup finds nothing, Spill frees what it is asked for, and it is quiet again."""
    recorded = session(*(look(second / 10, 40 + min(second, 82), 60) for second in range(200)))
    outcome = simulate(recorded, None, EVICTS)
    assert [done.kind for done in outcome.actions][:3] == [ActionKind.COLLECT, ActionKind.CLEANUP, ActionKind.SPILL]
    assert outcome.peak_bytes is not None
    assert outcome.peak_bytes < 182 * MIB


def test_an_action_that_ends_between_two_looks_is_followed_at_once() -> None:
    """R-T03: a sidecar looks again when an action has ended, so rungs follow each other within a step."""
    recorded = session(look(0.0, 40, 60), look(1.0, 66, 60), look(2.0, 67, 60), look(3.0, 67, 60))
    seen = [(done.kind, done.at) for done in simulate(recorded, None, EVICTS).actions]
    assert seen == [(ActionKind.CLEANUP, 1.0), (ActionKind.SPILL, 1.1)]


def test_what_caches_would_take_in_is_bounded_by_the_room() -> None:
    """R-T03: in Observe they fill up to their ceilings; under the policy they would have settled just below soft."""
    recorded = session(*(look(second / 10, 60, min(second, 100)) for second in range(200)))
    outcome = simulate(recorded, None, Effects())
    assert outcome.peak_bytes == 117 * MIB
    assert [done.kind for done in outcome.actions] == [ActionKind.COLLECT]


def test_what_a_recorded_action_freed_is_not_taken_as_less_load() -> None:
    """R-T03: under a policy that does not act there, the bytes would still be held."""
    recorded = session(look(0.0, 60, 70), look(1.0, 60, 30), look(2.0, 60, 30))
    recorded.actions.append(action(ActionKind.EVICT, 0.5, asked=40, freed=40))
    larger = msgspec.structs.replace(PLAN, total_bytes=400 * MIB)
    assert simulate(recorded, larger, Effects()).peak_bytes == 130 * MIB
    recorded.actions.clear()
    assert simulate(recorded, larger, Effects()).peak_bytes == 130 * MIB
    assert simulate(session(look(1.0, 60, 30)), larger, Effects()).peak_bytes == 90 * MIB


def test_an_unknown_signal_decides_nothing_and_is_counted() -> None:
    """R-T03: a prediction from half of the looks says so."""
    recorded = session(*(look(float(second), None) for second in range(5)), look(6.0, 10))
    outcome = simulate(recorded, None, Effects())
    assert (outcome.actions, outcome.unknown_looks, outcome.peak_bytes) == ((), 5, 10 * MIB)


def test_a_policy_that_is_tried_takes_the_place_of_the_recorded_plan() -> None:
    """R-T03: the same load under a smaller total."""
    recorded = session(*(look(float(second), 60, 40) for second in range(30)))
    smaller = msgspec.structs.replace(PLAN, total_bytes=100 * MIB)
    assert kinds(recorded, EVICTS) == []
    assert ActionKind.EVICT in [done.kind for done in simulate(recorded, smaller, EVICTS).actions]


def test_effects_are_medians_of_what_was_carried_out() -> None:
    """R-T03: an action that found nothing left tells nothing of its kind."""
    exhausted = action(ActionKind.EVICT, 9.0, asked=20, freed=0)
    exhausted = msgspec.structs.replace(exhausted, record=msgspec.structs.replace(exhausted.record, exhausted=True))
    effects = learn_effects(
        [action(ActionKind.EVICT, float(at), asked=20, freed=freed) for at, freed in enumerate((10, 20, 19))]
        + [exhausted]
    )
    assert effects.learned == {ActionKind.EVICT: Effect(0.95, 0.25, 3)}
    assert effects.assumed == (ActionKind.SPILL, ActionKind.CLEANUP, ActionKind.COLLECT)


def test_what_was_never_carried_out_is_assumed_and_said_to_be() -> None:
    """R-T03: an estimate is never shown as a measurement."""
    assert Effects().of(ActionKind.EVICT) == ASSUMED[ActionKind.EVICT]
    assert (Effects().of(ActionKind.CLEANUP), Effects().of(ActionKind.COLLECT).measured) == (NOTHING, 0)


def deed(at: float, kind: ActionKind = ActionKind.EVICT, level: Level = Level.EMERGENCY) -> Deed:
    """One deed."""
    return Deed(at, level, kind)


@pytest.mark.parametrize(
    ("predicted", "done", "share"),
    [
        ([], [], 1.0),
        ([deed(1.0)], [], 0.0),
        ([], [deed(1.0)], 0.0),
        ([deed(1.0)], [deed(2.9)], 1.0),
        ([deed(1.0)], [deed(3.1)], 0.0),
        ([deed(1.0)], [deed(1.0, ActionKind.SPILL)], 0.0),
        ([deed(1.0)], [deed(1.0, level=Level.HARD)], 0.0),
        ([deed(1.0), deed(1.5)], [deed(1.2)], 0.5),
        ([deed(1.0), deed(2.0)], [deed(1.2), deed(9.0)], 0.5),
    ],
)
def test_a_prediction_counts_once_and_near_enough(predicted: list[Deed], done: list[Deed], share: float) -> None:
    """R-T03: of the larger number, so that neither silence nor noise is rewarded."""
    assert compare(predicted, done).share == share


@given(st.lists(st.floats(0, 100), max_size=20))
def test_a_prediction_of_itself_is_whole(times: list[float]) -> None:
    """R-T03: whatever was done."""
    deeds = [deed(at) for at in times]
    assert compare(deeds, deeds).share == 1.0


def written(path: Path, *lines: RecordedLine) -> Path:
    """A recording file."""
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


START = RecordedStart(version=RECORDING_VERSION, started_at=1e9)


def test_each_start_begins_a_session_and_a_torn_end_is_left_out(tmp_path: Path) -> None:
    """R-T03: a sidecar that was killed and one that was started again write one file."""
    plan = RecordedPlan(at=0.0, plan=PLAN)
    path = written(tmp_path / "r", START, plan, look(1.0, 5), START, plan, look(0.5, 6), look(0.6, 6), START)
    with path.open("ab") as file:
        file.write(b'{"type":"look","at":0.7,"signalBy')
    assert [session.looks for session in read_recording(path)] == [1, 2]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{}\n", "line 1: "),
        (b'{"type":"look","at":1,"signalBytes":null}\n', "line 1: "),
        (msgspec.json.encode(look(0.0, 1)) + b"\n", "line 1: a recording begins with a start"),
        (b'{"type":"start","version":2,"startedAt":0}\n', "line 1: version 2 is newer than the 1 known here"),
        (b"\xff\n", "line 1: "),
        (b"[" * 100_000 + b"\n", "line 1: "),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    """R-T03: a person gave the wrong file."""
    path = tmp_path / "r"
    path.write_bytes(content)
    with pytest.raises(RecordingInvalid) as refused:
        read_recording(path)
    assert str(refused.value).startswith(told)


def test_the_command_prints_what_would_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-T03: as JSON, with the comparison where something was done."""
    looks = [look(second / 10, 40 + min(second, 82), 60) for second in range(200)]
    path = written(tmp_path / "r", START, RecordedPlan(at=0.0, plan=PLAN), *looks)
    code = main(["replay", str(path), "-o", "json"])
    (replayed,) = json.loads(capsys.readouterr().out)
    assert (code, replayed["looks"], replayed["comparison"]) == (0, 200, None)
    assert [done["kind"] for done in replayed["outcome"]["actions"]][:2] == ["Collect", "Cleanup"]
    assert main(["replay", str(path)]) == 0
    assert "assumed, none was carried out" in capsys.readouterr().out


def test_a_policy_of_another_signal_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-T03: bytes of two signals cannot be compared."""
    path = written(tmp_path / "r", START, RecordedPlan(at=0.0, plan=PLAN), look(0.0, 5))
    policy = tmp_path / "p.yaml"
    policy.write_text(
        "{apiVersion: membudget.dev/v1alpha1, kind: MemoryPolicy, metadata: {name: a}, "
        "spec: {budget: {signal: WorkingSet}}}"
    )
    assert main(["replay", str(path), "--policy", str(policy)]) == 1
    assert "spec.budget.signal: is WorkingSet, but Unreclaimable was recorded" in capsys.readouterr().err


def test_a_policy_that_was_in_force_before_the_first_look_is_the_one_whose_signal_was_recorded(tmp_path: Path) -> None:
    """R-T03: the built-in plan holds for a moment until a policy file was read."""
    other = compile_policy(parse_policy({**NAMED, "spec": {"budget": {"signal": "WorkingSet"}}}))
    plans = [RecordedPlan(at=0.0, plan=PLAN), RecordedPlan(at=0.1, plan=resolve(other, environment={}, limit=None))]
    path = written(tmp_path / "r", START, *plans, look(1.0, 5))
    policy = tmp_path / "p.yaml"
    policy.write_text(json.dumps({**NAMED, "spec": {"budget": {"signal": "WorkingSet"}}}))
    assert main(["replay", str(path), "--policy", str(policy)]) == 0


def test_of_a_process_that_was_only_observed_everything_is_unmanaged() -> None:
    """R-S14, R-T03: levels and actions are told, and nothing is thought to be freed."""
    seen = [
        RecordedLook(at=second / 10, signal_bytes=(100 + second) * MIB, unmanaged_bytes=None, limit_bytes=None,
                     evictable_bytes=None)
        for second in range(50)
    ]  # fmt: skip
    outcome = simulate(session(*seen), None, EVICTS)
    assert (149 * MIB, 0) == (outcome.peak_bytes, outcome.unknown_looks)
    assert {0} == {done.freed_bytes for done in outcome.actions}
    assert outcome.transitions >= 2


def test_a_missing_recording_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R-T03: no traceback."""
    assert main(["replay", str(tmp_path / "none")]) == 1
    assert "a sidecar writes one with --record FILE" in capsys.readouterr().err
