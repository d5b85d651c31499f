"""The loop sees, follows and hands over at the right moments; driven by hand beside a fake engine."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from membudget_contract.control_api import BUDGETS_PATH, FREE_PATH, REPORT_PATH, ROOM_PATH
from membudget_contract.plan import plan_hash
from membudget_contract.policy import Signal
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus, ConfigureRequest, Level
from membudget_sidecar.acting.actions import WAITING
from membudget_sidecar.acting.execution import Order
from membudget_sidecar.deciding.pace import WORST_BYTES_PER_SECOND
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.plans.plan_follower import RESIZE_AGAIN_SECONDS
from membudget_sidecar.waking import STALL_WINDOW_SECONDS
from memory_cgroup import memory_cgroup
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import HandDriven, policy_text, reports_asked

MIB = 1 << 20


def kinds(records: list[ActionRecord]) -> list[tuple[ActionKind, ActionStatus]]:
    """What was done and how it ended, without the Resize that every start brings."""
    return [(record.kind, record.status) for record in records if record.kind is not ActionKind.RESIZE]


def settled(
    sidecar: HandDriven, engine: FakeEngine, percent: int, *, mode: str = "Enforce", soft: dict[str, int] | None = None
) -> None:
    """A policy of 100Mi taken and held, the engine at that percent of it; garbage collection is out of the way."""
    sidecar.write_policy(policy_text(mode=mode, thresholds={"collect": {"percent": 100}, "soft": soft or {}}))
    sidecar.tick()
    sidecar.settle()
    engine.fill_to(percent * MIB)


# --- pace ---------------------------------------------------------------------------------------------------------


def test_far_from_the_threshold_one_full_look_in_ten_seconds(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S01, R-S11: the signal at every tick, the history and a report in ten seconds."""
    settled(sidecar, engine, 40)
    sidecar.tick(10)
    watch = sidecar.loop.watch
    samples, kept, reports = sidecar.loop.tally.samples, len(watch.history), reports_asked(engine)
    pauses = [sidecar.tick(1.0) for _ in range(20)]
    way = 40 * MIB / WORST_BYTES_PER_SECOND
    assert pauses == [pytest.approx(way, abs=0.03)] * 20
    assert 20 == sidecar.loop.tally.samples - samples
    assert (2, 2) == (len(watch.history) - kept, reports_asked(engine) - reports)


def test_near_the_threshold_the_signal_every_100_ms_and_a_report_every_second(
    sidecar: HandDriven, engine: FakeEngine
) -> None:
    """R-S01: faster by itself the nearer it is; each of these samples stands in the history."""
    settled(sidecar, engine, 75)
    sidecar.tick(10)
    watch = sidecar.loop.watch
    kept, reports = len(watch.history), reports_asked(engine)
    pauses = {sidecar.tick(0.125) for _ in range(24)}
    assert {0.1} == pauses
    assert (24, 3) == (len(watch.history) - kept, reports_asked(engine) - reports)


def test_a_low_soft_entry_brings_the_fast_pace_below_70_percent(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S01: near is near to the policy's own threshold."""
    settled(sidecar, engine, 55, soft={"percent": 60, "releasePercent": 55})
    sidecar.tick(10)
    assert 0.1 == sidecar.tick()


def test_a_signal_that_jumps_far_from_every_entry_is_acted_upon_at_the_next_tick(
    sidecar: HandDriven, engine: FakeEngine
) -> None:
    """Fault 45: 60 to 99 % between two looks that are not full ones: the next one starts the emergency."""
    settled(sidecar, engine, 60)
    sidecar.tick(10)
    engine.hold_managed(39 * MIB)
    sidecar.tick()
    first = next(record for record in sidecar.settle() if record.kind is not ActionKind.RESIZE)
    assert (ActionKind.EVICT, ActionStatus.EFFECTIVE) == (first.kind, first.status)
    assert "emergency entry" in first.cause


def test_stalls_for_memory_bring_the_next_looks_forward(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S01: PSI where the kernel tells it: a fast pace for one of its windows, whatever the signal."""
    settled(sidecar, engine, 20)
    sidecar.tick(10)
    before = sidecar.tick()
    sidecar.loop.stalled(sidecar.now)
    stalled = sidecar.tick()
    after = sidecar.tick(STALL_WINDOW_SECONDS)
    assert (0.1, True) == (stalled, before > 0.3)
    assert after == pytest.approx(before, abs=0.02)


def test_an_unknown_signal_is_looked_for_every_second(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S01: it may hide an emergency, so the ten seconds do not hold."""
    settled(sidecar, engine, 40)
    engine.kill()
    sidecar.tick(10)
    samples = sidecar.loop.tally.samples
    for _ in range(5):
        sidecar.tick(1.0)
    assert isinstance(sidecar.loop.watch.used.bytes, Absent)
    assert 5 == sidecar.loop.tally.samples - samples


def test_a_long_freeze_is_followed_by_one_tick_not_sixty(sidecar: HandDriven, engine: FakeEngine) -> None:
    """Fault 95: ten minutes later there is one look."""
    settled(sidecar, engine, 40)
    samples = sidecar.loop.tally.samples
    sidecar.tick(600)
    assert 1 == sidecar.loop.tally.samples - samples


# --- policy, plan, Resize -----------------------------------------------------------------------------------------


def test_a_policy_that_changed_is_held_by_the_engine(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S12, R-S05: file -> plan -> Resize with its hash, then nothing more."""
    settled(sidecar, engine, 40)
    sidecar.write_policy(policy_text("90Mi"))
    sidecar.tick(1.0)
    sidecar.settle()
    wanted = plan_hash(sidecar.keeper.effective)
    assert 90 * MIB == sidecar.keeper.effective.total_bytes
    assert wanted == engine.requests(BUDGETS_PATH)[-1]["planHash"]
    pushed = len(engine.requests(BUDGETS_PATH))
    for _ in range(30):
        sidecar.tick(1.0)
    assert pushed == len(engine.requests(BUDGETS_PATH))


def test_a_broken_policy_keeps_the_plan_and_says_why_once(
    sidecar: HandDriven, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 47: and the next good one is taken unaided."""
    settled(sidecar, engine, 40)
    sidecar.write_policy(policy_text("90Mi", mode="Enforcing"))
    for _ in range(5):
        sidecar.tick(1.0)
    assert 100 * MIB == sidecar.keeper.effective.total_bytes
    assert "spec.mode" in (sidecar.keeper.problem or "")
    assert 1 == sum("was not taken" in record.message for record in caplog.records)
    sidecar.write_policy(policy_text("90Mi"))
    sidecar.tick(1.0)
    assert (90 * MIB, None) == (sidecar.keeper.effective.total_bytes, sidecar.keeper.problem)


def test_a_total_below_what_the_engine_cannot_give_back_is_refused(sidecar: HandDriven, engine: FakeEngine) -> None:
    """BudgetBelowFloor: unmanaged bytes and Critical data, by policy and by configure alike."""
    settled(sidecar, engine, 60)
    engine.set_critical(10 * MIB)
    sidecar.tick(10)
    floor = sidecar.loop.watch.floor
    assert floor is not None
    assert (floor.signal, floor.amount) == (Signal.RESIDENT_SET_SIZE, pytest.approx(70 * MIB, abs=2 * MIB))
    sidecar.write_policy(policy_text("65Mi"))
    sidecar.tick(1.0)
    assert 100 * MIB == sidecar.keeper.effective.total_bytes
    assert f"ask for at least {-(-floor.amount * 100 // (78 * MIB))}Mi" in (sidecar.keeper.problem or "")


def test_a_restarted_engine_is_given_the_plan_again(sidecar: HandDriven, engine: FakeEngine) -> None:
    """Fault 54: a new pid holds nothing yet; within a second it holds the plan."""
    settled(sidecar, engine, 40)
    engine.kill()
    sidecar.tick(1.0)
    engine.start()
    sidecar.tick(1.0)
    sidecar.settle()
    assert [plan_hash(sidecar.keeper.effective)] == [body["planHash"] for body in engine.requests(BUDGETS_PATH)]


def test_a_restarted_engine_has_a_peak_and_a_room_of_its_own(sidecar: HandDriven, engine: FakeEngine) -> None:
    """Fault 54: the peak is reset, the history stays, and what the old one was told is told again."""
    settled(sidecar, engine, 40)
    sidecar.tick(10)
    room = engine.requests(ROOM_PATH)[-1]["roomBytes"]
    engine.fill_to(60 * MIB)
    sidecar.watch_quickly()
    engine.kill()
    engine.start()
    engine.fill_to(40 * MIB)
    sidecar.tick(1.0)
    peak = sidecar.loop.watch.history.peak()
    assert [pytest.approx(room, abs=MIB)] == [body["roomBytes"] for body in engine.requests(ROOM_PATH)]
    assert peak == pytest.approx(40 * MIB, abs=2 * MIB)
    assert len(sidecar.loop.watch.history) > 2


def test_resizes_do_not_pile_up(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S04: five plans while one Resize is in work: one more, with the last of them."""
    settled(sidecar, engine, 40)
    before = len(sidecar.records())
    engine.set_mode(BUDGETS_PATH, "hangs")
    for total in (99, 98, 97, 96, 95):
        sidecar.write_policy(policy_text(f"{total}Mi"))
        sidecar.tick(1.0)
        assert 1 == len(sidecar.unended())
    engine.set_mode(BUDGETS_PATH, "works")
    sidecar.settle()
    assert [ActionStatus.FAILED, ActionStatus.DONE] == [record.status for record in sidecar.records()[before:]]
    assert plan_hash(sidecar.keeper.effective) == engine.requests(BUDGETS_PATH)[-1]["planHash"]


def test_a_resize_that_is_refused_is_tried_again_only_after_a_pause(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S11: an engine that refuses brings neither a hot loop nor a log line at every tick."""
    engine.set_mode(BUDGETS_PATH, "refuses")
    sidecar.write_policy(policy_text())
    for _ in range(30):
        sidecar.tick(1.0)
        sidecar.settle()
    assert 30 / RESIZE_AGAIN_SECONDS == pytest.approx(len(engine.requests(BUDGETS_PATH)), abs=1)


def test_a_resize_that_finds_the_queue_full_is_not_forgotten(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S04: the plan reaches the engine when there is a place again."""
    settled(sidecar, engine, 40)
    engine.set_mode(FREE_PATH, "hangs")
    plan = sidecar.keeper.effective
    for _ in range(WAITING):
        sidecar.loop.actions.submit(Order(ActionKind.TRIM, plan, 0, 0, "asked by hand"))
    eventually(lambda: len(engine.requests(FREE_PATH)) == 1, "the first is in work")
    sidecar.loop.actions.submit(Order(ActionKind.TRIM, plan, 0, 0, "asked by hand"))
    sidecar.write_policy(policy_text("90Mi"))
    sidecar.tick(1.0)
    engine.set_mode(FREE_PATH, "works")
    sidecar.settle()
    sidecar.tick(RESIZE_AGAIN_SECONDS)
    sidecar.settle()
    assert plan_hash(sidecar.keeper.effective) == engine.requests(BUDGETS_PATH)[-1]["planHash"]


def test_what_was_configured_reaches_the_engine_and_ends(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-P05: tightened, held, and after its time the plan again."""
    settled(sidecar, engine, 40)
    sidecar.keeper.configure(ConfigureRequest(total="80Mi", ttl_seconds=30), None)
    totals: list[int] = []
    for after in (1.0, 30.0):
        sidecar.tick(after)
        sidecar.settle()
        totals.append(engine.requests(BUDGETS_PATH)[-1]["totalBytes"] // MIB)
    assert [80, 100] == totals


@pytest.mark.cgroup
def test_a_container_resized_in_place_takes_its_budget_along(sidecar: HandDriven, tmp_path: Path) -> None:
    """R-P03, fault 86: half of the live limit, in a real cgroup: known with the engine, moved with it in one sample."""
    collect = {"collect": {"percent": 100}}
    sidecar.write_policy(policy_text("50%", signal="Unreclaimable", thresholds=collect))
    sidecar.tick()
    before = sidecar.keeper.problem or ""
    with memory_cgroup(200 * MIB) as cgroup:
        engine = FakeEngine(tmp_path, cgroup.run).start()
        engine.hold_managed(40 * MIB)
        for limit in (200, 120, 180):
            cgroup.set_limit(limit * MIB)
            sidecar.tick(1.0)  # a quick look, but for the first
            sidecar.settle()
        used = sidecar.loop.watch.used
        totals = [body["totalBytes"] // MIB for body in engine.requests(BUDGETS_PATH)]
        engine.kill()
    assert "needs a container limit" in before
    assert (None, [100, 60, 90]) == (sidecar.keeper.problem, totals)
    assert "memory.stat" in used.source
    assert used.bytes == pytest.approx(50 * MIB, abs=10 * MIB)


# --- decisions, actions, results ----------------------------------------------------------------------------------


def test_over_the_soft_entry_the_engine_cleans_up_and_the_level_falls(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S03, R-S04: look -> decision -> action -> verified -> Normal, with nothing repeated."""
    settled(sidecar, engine, 50)
    engine.hold_managed(32 * MIB)
    sidecar.tick(10)
    records = sidecar.settle()
    sidecar.tick(1.0)
    assert [(ActionKind.CLEANUP, ActionStatus.EFFECTIVE)] == kinds(records)
    assert (Level.NORMAL, 2) == (sidecar.loop.watch.ladder.level, sidecar.loop.watch.ladder.transitions)
    assert engine.resident() < 76 * MIB


def test_an_engine_that_frees_nothing_is_escalated_rung_by_rung(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S06, fault 46: Cleanup, Spill, Evict, each judged by the kernel; then a pause, not a loop."""
    settled(sidecar, engine, 85)
    engine.set_mode(FREE_PATH, "claims")
    sidecar.tick(10)
    sidecar.settle()
    for _ in range(9):
        sidecar.tick(1.0)
        sidecar.settle()
    assert ["Cleanup", "Spill", "Evict"] == [body["means"] for body in engine.requests(FREE_PATH)]
    assert [ActionStatus.INEFFECTIVE] * 3 == [status for _, status in kinds(sidecar.records())]


def test_an_effective_action_needs_only_the_way_to_the_release_figure(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S04: asked for 50 MiB it frees 10, and the level is left: that is the goal, and nothing escalates."""
    settled(sidecar, engine, 72, soft={"freePercent": 50})
    engine.hold_managed(10 * MIB)
    sidecar.tick(10)
    (record,) = [record for record in sidecar.settle() if record.kind is not ActionKind.RESIZE]
    assert (ActionStatus.EFFECTIVE, 50 * MIB, True) == (record.status, record.asked_bytes, record.exhausted)
    assert (record.freed_bytes or 0) < 12 * MIB


def test_no_action_on_an_unknown_signal(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-S03, fault 42: an engine in an emergency that vanishes is not acted upon, and nothing is 0."""
    settled(sidecar, engine, 50)
    before = len(sidecar.records())
    engine.fill_to(120 * MIB)
    engine.kill()
    for _ in range(20):
        sidecar.tick(1.0)
    assert before == len(sidecar.records())
    assert isinstance(sidecar.loop.watch.used.bytes, Absent)
    assert sidecar.loop.watch.floor is None


def test_a_stale_report_makes_no_unmanaged_bytes(sidecar: HandDriven, engine: FakeEngine) -> None:
    """Design, sources: garbage collection and floor need a report of the last three seconds; the signal does not."""
    settled(sidecar, engine, 72)
    sidecar.tick(10)
    fresh = sidecar.loop.watch.floor
    engine.set_mode(REPORT_PATH, "garbage")
    sidecar.tick(1.0)
    assert fresh is not None
    assert (None, None) == (sidecar.loop.watch.floor, sidecar.link.report)
    assert isinstance(sidecar.loop.watch.used.bytes, int)


def test_a_frozen_engine_is_sampled_while_its_action_waits(sidecar: HandDriven, engine: FakeEngine) -> None:
    """Fault 43: the action ends Failed in its time, samples go on meanwhile, one action at a time is queued."""
    settled(sidecar, engine, 85)
    with engine.frozen():
        sidecar.tick(10)
        samples = sidecar.loop.tally.samples
        for _ in range(20):
            sidecar.tick()
        assert 20 == sidecar.loop.tally.samples - samples
        assert 1 == len(sidecar.unended())
        eventually(lambda: not sidecar.unended(), "the action fails in its time", 5)
    assert [(ActionKind.CLEANUP, ActionStatus.FAILED)] == kinds(sidecar.records())[
        :1
    ]  # a slow machine saw the next one
    sidecar.tick(10)
    sidecar.settle()
    assert ActionKind.SPILL in {kind for kind, _ in kinds(sidecar.records())}


def test_an_engine_that_is_away_fills_no_log(
    sidecar: HandDriven, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """A minute without the engine: one line when it goes, and a second between ticks."""
    settled(sidecar, engine, 40)
    engine.kill()
    caplog.clear()
    pauses = {sidecar.tick(1.0) for _ in range(60)}
    assert ({1.0}, 1) == (pauses, len(caplog.records))


# --- room ---------------------------------------------------------------------------------------------------------


def test_the_room_is_told_at_every_full_look(sidecar: HandDriven, engine: FakeEngine) -> None:
    """Design, room: soft entry - margin - unmanaged bytes; told again while it stands, or only the own figure holds."""
    settled(sidecar, engine, 40)
    sidecar.tick(10)
    before = len(engine.requests(ROOM_PATH))
    for _ in range(3):
        sidecar.tick(10)
    told = [body["roomBytes"] for body in engine.requests(ROOM_PATH)]
    assert before + 3 == len(told)
    assert told[-1] == pytest.approx((80 - 2 - 40) * MIB, abs=2 * MIB)
    engine.fill_to(45 * MIB)
    sidecar.tick(10)
    (newest,) = engine.requests(ROOM_PATH)[len(told) :]
    assert newest["roomBytes"] == pytest.approx(told[-1] - 5 * MIB, abs=2 * MIB)


def test_managed_bytes_do_not_narrow_the_room(sidecar: HandDriven, engine: FakeEngine) -> None:
    """Design, room: what the runtime manages counts inside it."""
    settled(sidecar, engine, 40)
    sidecar.tick(10)
    before = engine.requests(ROOM_PATH)[-1]["roomBytes"]
    engine.hold_managed(20 * MIB)
    sidecar.tick(10)
    assert engine.requests(ROOM_PATH)[-1]["roomBytes"] == pytest.approx(before, abs=2 * MIB)


def test_a_room_that_is_refused_is_logged_once(
    sidecar: HandDriven, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """No log line at every look."""
    engine.set_mode(ROOM_PATH, "refuses")
    settled(sidecar, engine, 40)
    for _ in range(5):
        sidecar.tick(10)
    assert 1 == sum("the room was not told" in record.message for record in caplog.records)


# --- Observe ------------------------------------------------------------------------------------------------------


def test_observe_decides_counts_and_does_nothing(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-P12: budgets once and not live, no room, no request to free; what would have been done is recorded."""
    settled(sidecar, engine, 99, mode="Observe")
    for after in (10.0, *[1.0] * 24):
        sidecar.tick(after)
        sidecar.settle()
    assert [False] == [body["live"] for body in engine.requests(BUDGETS_PATH)]
    assert ([], []) == (engine.requests(ROOM_PATH), engine.requests(FREE_PATH))
    seen = sidecar.loop.tally.actions[ActionKind.EVICT, ActionStatus.OBSERVED]
    assert {(ActionKind.EVICT, ActionStatus.OBSERVED)} == set(kinds(sidecar.records()))
    assert 3 == seen


def test_the_end_of_observe_acts_and_tells_the_room(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-P12: what was only decided is done with the next look."""
    settled(sidecar, engine, 50, mode="Observe")
    engine.hold_managed(50 * MIB)
    sidecar.tick(10)
    sidecar.settle()
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    sidecar.tick(1.0)
    sidecar.settle()
    assert (ActionKind.EVICT, ActionStatus.EFFECTIVE) in kinds(sidecar.records())
    assert engine.requests(ROOM_PATH)


# --- the thread ---------------------------------------------------------------------------------------------------


def test_the_thread_wakes_survives_a_defect_and_ends(sidecar: HandDriven, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-S11: an exception in one look is not the last look, `reload` cuts a pause short, `stop` ends at once."""
    looks: list[float] = []

    def tick(now: float) -> float:
        looks.append(now)
        if len(looks) == 1:
            raise ZeroDivisionError
        return 60.0

    monkeypatch.setattr(sidecar.loop, "tick", tick)
    monkeypatch.setattr(sidecar.loop.actions, "start", lambda: None)  # it runs already
    thread = threading.Thread(target=sidecar.loop.run)
    thread.start()
    eventually(lambda: len(looks) == 2, "a look after the defect")
    sidecar.loop.reload()
    eventually(lambda: len(looks) == 3, "a look when asked")
    sidecar.loop.stop()
    thread.join(5)
    assert not thread.is_alive()
