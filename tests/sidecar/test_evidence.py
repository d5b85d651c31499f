"""What an action freed is what one witness read before and after it; what harm it did is told later (R-S04, R-S06)."""

from __future__ import annotations

import functools
from collections.abc import Generator
from pathlib import Path

import pytest

from membudget_contract.control_api import FREE_PATH, REPORT_PATH
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus, Witness
from membudget_sidecar.acting import actions
from membudget_sidecar.acting.aftermath import Aftermath
from membudget_sidecar.acting.execution import Order
from membudget_sidecar.kernel.engine_process import EngineProcess, find_engine_process
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import HandDriven, policy_text
from sidecar.kernel_tree import V2_FILES, V2_STAT, build

MIB = 1 << 20


@pytest.fixture
def ready(sidecar: HandDriven, engine: FakeEngine) -> HandDriven:
    """The plan of 100Mi is held, and 40 MiB are managed."""
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    sidecar.tick()
    sidecar.settle()
    engine.hold_managed(40 * MIB)
    return sidecar


def done(sidecar: HandDriven, kind: ActionKind, amount: int) -> ActionRecord:
    """One action by hand, ended."""
    number = sidecar.loop.actions.submit(Order(kind, sidecar.keeper.effective, amount, 0, "a test")).id
    return next(record for record in sidecar.settle() if record.id == number)


def unreadable(engine: FakeEngine, folder: Path) -> EngineProcess:
    """The same living process, of whose memory the kernel's files are missing."""
    here = build(folder / "proc", {str(engine.pid): {}, "self": {}}) / str(engine.pid)
    (here / "stat").symlink_to(f"/proc/{engine.pid}/stat")
    return find_engine_process(folder / "proc", folder / "cgroup", engine.pid)


def test_the_kernel_is_the_witness_where_it_can_be_read(ready: HandDriven, engine: FakeEngine) -> None:
    """R-S04: with the file it was read from."""
    record = done(ready, ActionKind.EVICT, 30 * MIB)
    assert (ActionStatus.EFFECTIVE, Witness.KERNEL) == (record.status, record.verified_by)
    assert record.signal_source == f"/proc/{engine.pid}/statm"


def test_without_the_kernel_the_engines_report_is_the_witness_and_is_named(
    ready: HandDriven, engine: FakeEngine, tmp_path: Path
) -> None:
    """R-S04: two reports, marked as the engine's word; the reason why stands beside it."""
    ready.link.process = unreadable(engine, tmp_path)
    record = done(ready, ActionKind.EVICT, 30 * MIB)
    assert (ActionStatus.EFFECTIVE, Witness.ENGINE_REPORT) == (record.status, record.verified_by)
    assert (40 * MIB, 10 * MIB, 30 * MIB) == (
        record.signal_before_bytes,
        record.signal_after_bytes,
        record.freed_bytes,
    )
    assert "the engine's report, managedBytes: " in (record.signal_source or "")


def test_an_engine_that_only_claims_is_ineffective_by_its_own_report(
    ready: HandDriven, engine: FakeEngine, tmp_path: Path
) -> None:
    """R-S04, known bug 3: the answer to the action is no reading."""
    ready.link.process = unreadable(engine, tmp_path)
    engine.set_mode(FREE_PATH, "claims")
    record = done(ready, ActionKind.EVICT, 30 * MIB)
    assert (ActionStatus.INEFFECTIVE, 0, 30 * MIB) == (record.status, record.freed_bytes, record.owned_before_bytes)


def test_without_kernel_and_report_nothing_is_verified(ready: HandDriven, engine: FakeEngine, tmp_path: Path) -> None:
    """R-S04: done, as the engine says; what it freed, nobody read."""
    ready.link.process = unreadable(engine, tmp_path)
    engine.set_mode(REPORT_PATH, "refuses")
    record = done(ready, ActionKind.EVICT, 30 * MIB)
    assert (ActionStatus.UNVERIFIED, None, None) == (record.status, record.freed_bytes, record.verified_by)


@pytest.mark.parametrize(
    ("kind", "status"), [(ActionKind.CLEANUP, ActionStatus.INEFFECTIVE), (ActionKind.EVICT, ActionStatus.EFFECTIVE)]
)
def test_pages_that_return_within_a_second_were_not_freed_by_a_cleanup(
    ready: HandDriven, engine: FakeEngine, kind: ActionKind, status: ActionStatus
) -> None:
    """R-S05, R-S06: a page-out is read again until a second has gone by; an eviction is not, and costs no second."""
    before = engine.resident()
    number = ready.loop.actions.submit(Order(kind, ready.keeper.effective, 30 * MIB, 0, "a test")).id
    eventually(lambda: engine.resident() < before - 29 * MIB, "the pages are out")
    if kind is ActionKind.EVICT:
        ready.settle()
    engine.hold_managed(30 * MIB)
    (record,) = [record for record in ready.settle() if record.id == number]
    assert status == record.status


def test_a_cleanup_that_lasts_is_effective(ready: HandDriven) -> None:
    """R-S05: by the figure of a second later."""
    record = done(ready, ActionKind.CLEANUP, 30 * MIB)
    assert ActionStatus.EFFECTIVE == record.status
    assert (record.duration_seconds or 0) >= 1.0


# --- harm, from the action to the ladder --------------------------------------------------------------------------


@pytest.fixture
def hasty(tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Generator[HandDriven]:
    """A sidecar whose verdicts on harm come soon, beside an engine in a recorded cgroup of its own."""
    monkeypatch.setattr(actions, "Aftermath", functools.partial(Aftermath, soon_seconds=0.5, later_seconds=0.6))
    driven = HandDriven(tmp_path, action_seconds=1.0)
    driven.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    driven.tick()
    driven.settle()
    driven.link.process = in_own_cgroup(engine, tmp_path)
    engine.fill_to(60 * MIB)
    engine.hold_managed(25 * MIB)
    yield driven
    driven.close()


def in_own_cgroup(engine: FakeEngine, folder: Path) -> EngineProcess:
    """The real process as it is; its cgroup is a recorded one whose refaults the test writes."""
    member = {str(engine.pid): {"cgroup": "0::/pod/engine\n"}, "self": {"cgroup": "0::/pod/sidecar\n"}}
    here = build(folder / "proc", member) / str(engine.pid)
    for name in ("stat", "statm", "status"):
        (here / name).symlink_to(f"/proc/{engine.pid}/{name}")
    build(folder / "cgroup", {"pod": {"engine": V2_FILES}})
    return find_engine_process(folder / "proc", folder / "cgroup", engine.pid)


def refault(folder: Path, pages: int) -> None:
    """The kernel counts so many pages read again since the start."""
    stat = V2_STAT.replace("workingset_refault_file 6500", f"workingset_refault_file {6500 + pages}")
    (folder / "cgroup/pod/engine/memory.stat").write_text(stat)


def test_a_harmful_action_is_told_as_such_and_the_ladder_backs_off(
    hasty: HandDriven, engine: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R-S06: effective at first, Harmful in the record, the count and the log once its pages were read again."""
    caplog.set_level("INFO")
    hasty.tick(10)
    eventually(lambda: len(engine.requests(FREE_PATH)) == 1, "the Cleanup is asked for")
    refault(tmp_path, 9000)
    (cleanup,) = [record for record in hasty.settle() if record.kind is ActionKind.CLEANUP]
    assert ActionStatus.EFFECTIVE == cleanup.status
    eventually(lambda: hasty.records()[cleanup.id - 1].status is ActionStatus.HARMFUL, "the verdict")
    hasty.tick()
    harmful = hasty.records()[cleanup.id - 1]
    assert "were read again within 1 s" in (harmful.harm or "")
    assert (cleanup.freed_bytes, cleanup.finished_at) == (harmful.freed_bytes, harmful.finished_at)
    assert {ActionKind.CLEANUP} == set(hasty.loop.watch.ladder.back_offs)
    tally = hasty.loop.tally
    assert (1, 1) == (tally.harms[ActionKind.CLEANUP], tally.actions[ActionKind.CLEANUP, ActionStatus.EFFECTIVE])
    assert ActionStatus.HARMFUL not in {status for _, status in tally.actions}
    assert any("Cleanup Harmful" in line for line in caplog.messages)


def test_a_backed_off_kind_is_not_asked_for_again(hasty: HandDriven, engine: FakeEngine, tmp_path: Path) -> None:
    """R-S06: over the soft entry for half a minute afterwards, and the engine is left alone."""
    hasty.tick(10)
    eventually(lambda: len(engine.requests(FREE_PATH)) == 1, "the Cleanup is asked for")
    refault(tmp_path, 9000)
    hasty.settle()
    eventually(lambda: ActionStatus.HARMFUL in {record.status for record in hasty.records()}, "the verdict")
    engine.hold_managed(12 * MIB)
    for _ in range(30):
        hasty.tick(1.0)
        hasty.settle()
    assert ["Cleanup"] == [body["means"] for body in engine.requests(FREE_PATH)]
