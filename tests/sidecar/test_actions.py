"""Actions are carried out one at a time and in order, and never for ever (R-S04, R-S05, fault 43).

What proves that an action freed anything: `test_evidence`.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import (
    BUDGETS_PATH,
    FREE_PATH,
    PERSIST_PATH,
    RELOAD_PATH,
    Freed,
    FreeRequest,
    Means,
)
from membudget_contract.plan import plan_hash
from membudget_contract.policy import Mode
from membudget_contract.resolve import resolve
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus, Level
from membudget_sidecar.acting import actions, execution
from membudget_sidecar.acting.actions import WAITING, ActionRunner
from membudget_sidecar.acting.control_client import ACTION_SECONDS
from membudget_sidecar.acting.engine_link import EngineLink
from membudget_sidecar.acting.execution import KEPT_ERROR_CHARACTERS, LADDER_SPILL_SECONDS, Order
from membudget_sidecar.acting.upkeep import UPKEEP
from membudget_sidecar.deciding.ladder_state import Decision, Observation
from membudget_sidecar.errors import QueueFull
from membudget_sidecar.serving.api import local_api
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.settings import SidecarSettings
from sidecar.exchanged import request
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import HandDriven, policy_text

MIB = 1 << 20
ENVIRONMENT = {"MEMBUDGET_SIGNAL": "ResidentSetSize", "MEMBUDGET_TOTAL": "100Mi"}
PLAN = resolve(compile_policy(None), environment=ENVIRONMENT, limit=None)
OBSERVED = msgspec.structs.replace(PLAN, mode=Mode.OBSERVE)
SECONDS = 0.5


class Running:
    """A runner beside an engine, and what it said when each action ended."""

    def __init__(self, folder: Path) -> None:
        self.ended: list[tuple[Order, ActionRecord]] = []
        self.mode = Mode.ENFORCE
        settings = SidecarSettings(folder, folder / "state", None)
        self.link = EngineLink(settings)
        self.runner = ActionRunner(
            settings,
            self.link,
            wall=time.time,
            ended=lambda order, record: self.ended.append((order, record)),
            mode=lambda: self.mode,
            seconds=SECONDS,
        )

    def done(self, *orders: Order) -> list[ActionRecord]:
        """Submit them all, and wait for all."""
        goal = len(self.ended) + len(orders)
        for order in orders:
            self.runner.submit(order)
        eventually(lambda: len(self.ended) >= goal, "the actions end")
        return [record for _, record in self.ended[-len(orders) :]]


@pytest.fixture
def running(tmp_path: Path, engine: FakeEngine) -> Generator[Running]:
    """Started, with the engine found."""
    made = Running(tmp_path)
    made.link.find()
    made.runner.start()
    assert engine.pid
    yield made
    made.runner.stop()
    made.link.client.close()


def evict(amount: int, *, goal: int = 0) -> Order:
    """An eviction of that many bytes."""
    return Order(ActionKind.EVICT, PLAN, amount, goal, "a test")


def test_what_was_freed_is_what_the_kernel_says(running: Running, engine: FakeEngine) -> None:
    """R-S04: measured before and after; the engine's own figures stand beside it."""
    engine.hold_managed(40 * MIB)
    (record,) = running.done(evict(30 * MIB))
    assert ActionStatus.EFFECTIVE == record.status
    assert record.freed_bytes == pytest.approx(30 * MIB, abs=2 * MIB)
    assert (40 * MIB, 10 * MIB, 30, False) == (
        record.owned_before_bytes,
        record.owned_after_bytes,
        record.entries,
        record.exhausted,
    )
    assert record.signal_source == f"/proc/{engine.pid}/statm"
    assert record.queued_at <= (record.started_at or 0) <= (record.finished_at or 0)


def test_an_engine_that_only_claims_to_have_freed_is_ineffective(running: Running, engine: FakeEngine) -> None:
    """R-S04, fault 46, known bug 3: the claim is recorded, and believed by nobody."""
    engine.hold_managed(40 * MIB)
    engine.set_mode(FREE_PATH, "claims")
    (record,) = running.done(evict(30 * MIB))
    assert (ActionStatus.INEFFECTIVE, 30 * MIB) == (record.status, record.owned_before_bytes)
    assert record.freed_bytes == pytest.approx(0, abs=2 * MIB)


def test_actions_are_done_in_order_and_one_at_a_time(running: Running, engine: FakeEngine) -> None:
    """R-S04: each begins when the one before ended."""
    engine.hold_managed(20 * MIB)
    records = running.done(*(evict(number * MIB) for number in range(1, 6)))
    assert [1, 2, 3, 4, 5] == [request["targetBytes"] // MIB for request in engine.requests(FREE_PATH)]
    assert [1, 2, 3, 4, 5] == [record.id for record in records]
    for earlier, later in itertools.pairwise(records):
        assert (earlier.finished_at or 0) <= (later.started_at or 0)


@pytest.mark.parametrize("mode", ["hangs", "drips"])
def test_an_engine_that_hangs_is_given_up_and_the_next_action_runs(
    running: Running, engine: FakeEngine, mode: str
) -> None:
    """Fault 43: the action times out and is Failed; after the thaw the next one works."""
    engine.hold_managed(20 * MIB)
    engine.set_mode(FREE_PATH, mode)
    started = time.monotonic()
    (record,) = running.done(evict(10 * MIB))
    assert (ActionStatus.FAILED, None) == (record.status, record.freed_bytes)
    assert "timed out" in (record.error or "")
    assert record.signal_before_bytes == pytest.approx(engine.resident(), abs=2 * MIB)
    assert time.monotonic() - started < SECONDS + 1
    engine.set_mode(FREE_PATH, "works")
    assert ActionStatus.EFFECTIVE == running.done(evict(10 * MIB))[0].status


def test_a_frozen_engine_fails_its_actions_within_their_time(running: Running, engine: FakeEngine) -> None:
    """Fault 43: SIGSTOP, with the connection open or not yet."""
    with engine.frozen():
        records = running.done(evict(MIB), evict(MIB))
    assert [ActionStatus.FAILED, ActionStatus.FAILED] == [record.status for record in records]
    assert ActionStatus.INEFFECTIVE == running.done(evict(MIB))[0].status


@pytest.mark.parametrize(
    ("mode", "says"), [("refuses", "Busy: not now"), ("garbage", "malformed"), ("huge", "more than")]
)
def test_a_bad_answer_is_a_failed_action_with_its_reason(
    running: Running, engine: FakeEngine, mode: str, says: str
) -> None:
    """R-S04: refused, garbage, 2 MB."""
    engine.set_mode(FREE_PATH, mode)
    (record,) = running.done(evict(MIB))
    assert ActionStatus.FAILED == record.status
    assert says in (record.error or "")


def test_an_engine_that_restarts_meanwhile_has_freed_nothing(
    running: Running, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-S04: the fall from an old process to a new one is no effect of the action."""
    engine.fill_to(60 * MIB)
    client = cast("Any", running.runner)._client
    genuine = client.free

    def restarted_meanwhile(request: FreeRequest) -> Freed:
        engine.kill()
        engine.start()
        assert running.link.find()
        return genuine(request)

    monkeypatch.setattr(client, "free", restarted_meanwhile)
    (record,) = running.done(evict(10 * MIB))
    assert (ActionStatus.UNVERIFIED, None) == (record.status, record.freed_bytes)


def test_without_an_engine_an_action_fails_and_says_so(tmp_path: Path) -> None:
    """R-S04: asked by hand before the engine is up."""
    running = Running(tmp_path)
    running.runner.start()
    (record,) = running.done(evict(MIB))
    running.runner.stop()
    assert (ActionStatus.FAILED, "no engine was seen yet") == (record.status, record.error)


def test_every_kind_reaches_the_engine_under_its_own_name(running: Running, engine: FakeEngine) -> None:
    """R-S05, known bug 4: no kind is without an executor."""
    running.done(*(Order(kind, PLAN, 0, 0, "a test") for kind in ActionKind))
    assert [means.value for means in Means] == [request["means"] for request in engine.requests(FREE_PATH)]
    paths = (BUDGETS_PATH, RELOAD_PATH, PERSIST_PATH)
    assert {kind.value for kind in ActionKind} - {means.value for means in Means} == {"Resize", "Reload", "Persist"}
    assert [1, 1, 1] == [len(engine.requests(path)) for path in paths]
    assert [plan_hash(PLAN)] == [request["planHash"] for request in engine.requests(BUDGETS_PATH)]


def test_a_spill_of_the_ladder_may_not_take_long_and_one_by_hand_may(running: Running, engine: FakeEngine) -> None:
    """R-S04: an emergency waits for the action in work; a person waits for what they asked for."""
    decision = Decision(ActionKind.SPILL, Level.HARD, MIB, 0, "")
    running.done(
        Order(ActionKind.SPILL, PLAN, MIB, 0, "", decision),
        Order(ActionKind.SPILL, PLAN, MIB, 0, ""),
        Order(ActionKind.EVICT, PLAN, MIB, 0, "", decision),
    )
    asked = {(each["means"], each["withinSeconds"]) for each in engine.requests(FREE_PATH)}
    assert {("Spill", LADDER_SPILL_SECONDS), ("Spill", None), ("Evict", None)} == asked


def test_in_observe_mode_only_budgets_are_told(running: Running, engine: FakeEngine) -> None:
    """R-P12: the others are recorded as Observed; budgets say that they are not live. A reload frees nothing."""
    running.mode = Mode.OBSERVE
    records = running.done(*(Order(kind, OBSERVED, MIB, 0, "a test") for kind in ActionKind))
    observed = {record.kind for record in records if record.status is ActionStatus.OBSERVED}
    assert set(ActionKind) - {ActionKind.RESIZE, *UPKEEP} == observed
    assert ([], [False]) == (
        engine.requests(FREE_PATH),
        [request["live"] for request in engine.requests(BUDGETS_PATH)],
    )


def test_an_action_queued_under_enforce_is_not_carried_out_in_observe(running: Running, engine: FakeEngine) -> None:
    """R-P12: what counts is the mode when its turn comes; the plan it was queued with enforces still."""
    engine.hold_managed(20 * MIB)
    engine.set_mode(FREE_PATH, "hangs")
    running.runner.submit(evict(MIB))
    eventually(lambda: len(engine.requests(FREE_PATH)) == 1, "the first is in work")
    running.runner.submit(evict(10 * MIB))
    running.mode = Mode.OBSERVE
    eventually(lambda: len(running.ended) == 2, "both end")
    assert [ActionStatus.FAILED, ActionStatus.OBSERVED] == [record.status for _, record in running.ended]
    assert [MIB] == [request["targetBytes"] for request in engine.requests(FREE_PATH)]


def test_budgets_go_first_then_the_ladder_then_people(tmp_path: Path, engine: FakeEngine) -> None:
    """R-S04: whatever the order in which they were asked for; of the same rank the older first."""
    running = Running(tmp_path)
    running.link.find()
    decision = Decision(ActionKind.EVICT, Level.EMERGENCY, MIB, 0, "the ladder")
    by_hand = [running.runner.submit(evict(MIB)).id for _ in range(2)]
    ladder = running.runner.submit(Order(ActionKind.EVICT, PLAN, MIB, 0, "the ladder", decision)).id
    resize = running.runner.submit(Order(ActionKind.RESIZE, PLAN, 0, 0, "another plan")).id
    running.runner.start()
    eventually(lambda: len(running.ended) == 4, "all end")
    running.runner.stop()
    assert engine.pid
    assert [resize, ladder, *by_hand] == [record.id for _, record in running.ended]


def test_critical_data_is_never_asked_for(running: Running, engine: FakeEngine) -> None:
    """Guarantee 2: whatever the kind, up to High and no further."""
    running.done(*(Order(kind, PLAN, MIB, 0, "a test") for kind in ActionKind))
    assert {"High"} == {request["upTo"] for request in engine.requests(FREE_PATH)}


def test_a_record_keeps_the_look_that_caused_it(running: Running, engine: FakeEngine) -> None:
    """R-S04: signal and where it was read, limit, unmanaged bytes, forecast, rung; the look's time as people's."""
    engine.hold_managed(20 * MIB)
    seen = Observation(
        now=time.monotonic() - 3,
        signal_bytes=99 * MIB,
        unmanaged_bytes=12 * MIB,
        limit_bytes=150 * MIB,
        seconds_to_limit=7.5,
        signal_source="memory.stat anon",
    )
    decision = Decision(ActionKind.EVICT, Level.EMERGENCY, 10 * MIB, 0, "over", observation=seen)
    (record,) = running.done(Order(ActionKind.EVICT, PLAN, 10 * MIB, 0, "over", decision))
    assert (99 * MIB, "memory.stat anon", 150 * MIB, 12 * MIB, 7.5, Level.EMERGENCY, plan_hash(PLAN)) == (
        record.seen_signal_bytes,
        record.seen_signal_source,
        record.seen_limit_bytes,
        record.seen_unmanaged_bytes,
        record.seen_seconds_to_limit,
        record.level,
        record.plan_hash,
    )
    assert record.seen_at == pytest.approx(record.queued_at - 3, abs=0.5)
    assert record.duration_seconds == pytest.approx((record.finished_at or 0) - (record.started_at or 0), abs=0.1)


def test_an_action_that_nothing_was_seen_for_says_so(running: Running) -> None:
    """R-S04: by hand there was no look, and none is made up."""
    (record,) = running.done(evict(MIB))
    assert (None, None, None, None) == (record.seen_at, record.seen_signal_bytes, record.seen_limit_bytes, record.level)


def test_a_frozen_engine_holds_an_action_ten_seconds_and_the_next_tier_runs_after_the_thaw(
    tmp_path: Path, engine: FakeEngine, publish: Callable[[str], None]
) -> None:
    """Fault 43: SIGSTOP, and the time of production: Failed after 10 s, 64 by hand wait and no more, then Spill."""
    sidecar = HandDriven(tmp_path, action_seconds=ACTION_SECONDS)
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    sidecar.tick()
    sidecar.settle()
    engine.fill_to(88 * MIB)
    by_hand = Order(ActionKind.TRIM, sidecar.keeper.effective, 0, 0, "by hand")
    with engine.frozen():
        sidecar.tick(10)
        (running,) = sidecar.unended()
        for _ in range(WAITING):
            sidecar.loop.actions.submit(by_hand)
        with pytest.raises(QueueFull, match="64 actions wait already"):
            sidecar.loop.actions.submit(by_hand)
        eventually(lambda: ended(sidecar, running.id).status is ActionStatus.FAILED, "it is given up", 15)
    failed = ended(sidecar, running.id)
    sidecar.settle(30)
    sidecar.close()
    assert (ActionKind.CLEANUP, None, True) == (failed.kind, failed.freed_bytes, "timed out" in (failed.error or ""))
    assert "Spill" in {request["means"] for request in engine.requests(FREE_PATH)}
    publish(f"an action of a frozen engine was given up after {failed.duration_seconds:.1f} s (goal: 10 s)")


def ended(sidecar: HandDriven, number: int) -> ActionRecord:
    """The record as it is now."""
    record = sidecar.loop.actions.record(number)
    assert record is not None
    return record


@pytest.mark.parametrize("kind", ["Evict", "Spill", "Cleanup"])
@pytest.mark.parametrize("target", [{}, {"targetBytes": 0}], ids=["missing", "zero"])
def test_by_hand_what_frees_must_say_how_many_bytes(sidecar: HandDriven, kind: str, target: dict[str, int]) -> None:
    """R-S05, decision 0006: asked for nothing in particular, nothing could be verified."""
    local = local_api(Served(sidecar.loop, None, sidecar.settings), own_uid=os.getuid())
    answered = request(local, "POST", "/v1/actions", json.dumps({"kind": kind, **target}).encode())
    assert (400, []) == (answered.status, sidecar.records())
    assert f"say how many bytes {kind} is to free" in answered.json["detail"]


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """R-S04, fault 43: the 65th that waits is refused, and leaves no record."""
    running = Running(tmp_path)  # not started: all wait
    for _ in range(WAITING):
        running.runner.submit(evict(MIB))
    with pytest.raises(QueueFull, match="64 actions wait already"):
        running.runner.submit(evict(MIB))
    assert WAITING == len(running.runner.records())


def test_records_are_kept_to_a_bound_with_the_newest(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-S04, known bug 11: the oldest gives way; what is forgotten is not found."""
    monkeypatch.setattr(actions, "KEPT_RECORDS", 3)
    running.mode = Mode.OBSERVE
    running.done(*(Order(ActionKind.TRIM, OBSERVED, 0, 0, "a test") for _ in range(5)))
    assert [3, 4, 5] == [record.id for record in running.runner.records()]
    found = running.runner.record(5)
    assert (None, ActionStatus.OBSERVED) == (running.runner.record(2), found.status if found else None)


def test_a_defect_in_one_action_does_not_end_the_thread(
    running: Running, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-S04: the thread that gives memory back survives whatever one action meets."""
    engine.hold_managed(10 * MIB)

    def broken(*_arguments: object) -> ActionStatus:
        raise ZeroDivisionError("x" * 1000)

    with monkeypatch.context() as patch:
        patch.setattr(execution, "judge", broken)
        (record,) = running.done(evict(MIB))
    assert (ActionStatus.FAILED, KEPT_ERROR_CHARACTERS) == (record.status, len(record.error or ""))
    assert ActionStatus.EFFECTIVE == running.done(evict(5 * MIB))[0].status


def test_stop_leaves_what_waits_and_ends_in_time(running: Running, engine: FakeEngine) -> None:
    """R-S12: SIGTERM does not wait for sixty evictions."""
    engine.set_mode(FREE_PATH, "hangs")
    for _ in range(10):
        running.runner.submit(evict(MIB))
    eventually(lambda: len(engine.requests(FREE_PATH)) == 1, "the first is in work")
    started = time.monotonic()
    running.runner.stop()
    assert time.monotonic() - started < actions.STOP_SECONDS
    assert 9 == sum(record.status is ActionStatus.QUEUED for record in running.runner.records())
