"""Bugs of comparable systems, put into our own code for a moment: the check that guards against each must notice.

Each test asserts that the same look at the sidecar that holds without the bug fails with it. Numbers are those of
the fault catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest

from membudget_contract.control_api import FREE_PATH, Freed, Means
from membudget_contract.sidecar_api import ActionKind, ActionStatus
from membudget_sidecar import actions, ladder, watch
from membudget_sidecar.engine_process import EngineProcess
from membudget_sidecar.history import DEFAULT_CAPACITY, History
from membudget_sidecar.reading import Absent, SignalReading
from sidecar.fake_engine import FakeEngine
from sidecar.hand_driven import HandDriven, policy_text

MIB = 1 << 20
Checked = TypeVar("Checked")


def noticed(check: Callable[[], Checked], healthy: Checked, put_in: Callable[[], None]) -> None:
    """The check holds, the bug is put in, the check does not hold any more."""
    assert healthy == check()
    put_in()
    assert healthy != check()


def ready(sidecar: HandDriven, engine: FakeEngine, **thresholds: Any) -> None:
    """The plan of 100Mi is held; garbage collection is out of the way."""
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}} | thresholds))
    sidecar.tick()
    sidecar.settle()
    assert engine.resident() < 70 * MIB


def test_bug_3_freed_bytes_that_are_estimated(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug 3: the engine's claim in place of the kernel's figures makes an action effective that freed nothing."""
    ready(sidecar, engine)
    engine.fill_to(85 * MIB)
    engine.set_mode(FREE_PATH, "claims")

    def first_status() -> ActionStatus:
        known = len(sidecar.records())
        sidecar.tick(20)
        sidecar.settle()
        return sidecar.records()[known].status

    def believes(*_figures: object) -> ActionStatus:
        return ActionStatus.EFFECTIVE

    noticed(first_status, ActionStatus.INEFFECTIVE, lambda: monkeypatch.setattr(actions, "judge", believes))


def test_bug_4_an_action_kind_that_nobody_carries_out(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug 4: a kind without an executor succeeds silently; every kind must reach the engine."""
    ready(sidecar, engine)
    genuine = cast("Any", actions.ActionRunner)._ask

    def reached() -> list[str]:
        before = len(engine.requests(FREE_PATH))
        for means in Means:
            kind, plan = ActionKind(means.value), sidecar.keeper.effective
            sidecar.loop.actions.submit(actions.Order(kind, plan, 0, 0, "a test"))
        sidecar.settle()
        return [body["means"] for body in engine.requests(FREE_PATH)[before:]]

    def forgets_spill(runner: actions.ActionRunner, order: actions.Order) -> object:
        if order.kind is ActionKind.SPILL:
            return Freed(owned_before_bytes=0, owned_after_bytes=0, entries=0, collections={}, exhausted=False)
        return genuine(runner, order)

    noticed(
        reached,
        [means.value for means in Means],
        lambda: monkeypatch.setattr(actions.ActionRunner, "_ask", forgets_spill),
    )


def test_bug_5_a_hard_threshold_that_does_nothing(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug 5: over the hard entry something is asked of the engine; a rung that is skipped shows."""
    ready(sidecar, engine)
    genuine = cast("Any", ladder)._rung_decision

    def asked_at_95_percent() -> list[str]:
        before = len(engine.requests(FREE_PATH))
        engine.fill_to(50 * MIB)
        engine.hold_managed(45 * MIB)
        sidecar.tick(20)
        sidecar.settle()
        return [body["means"] for body in engine.requests(FREE_PATH)[before:]][:1]

    def without_spill(*arguments: Any) -> ladder.Decision | None:
        decision: ladder.Decision | None = genuine(*arguments)
        return None if decision is not None and decision.kind is ActionKind.SPILL else decision

    noticed(asked_at_95_percent, ["Spill"], lambda: monkeypatch.setattr(ladder, "_rung_decision", without_spill))


def test_bug_7_a_failed_reading_that_is_zero(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug 7: a reading that failed is absent, ends no level and makes no average; as 0 it would do all of that."""
    ready(sidecar, engine)
    engine.set_mode(FREE_PATH, "claims")
    engine.fill_to(85 * MIB)
    sidecar.tick(10)
    sidecar.settle()
    process = sidecar.link.process
    assert process is not None

    def unread(*_arguments: object) -> SignalReading:
        return SignalReading(Absent("Permission denied"), "statm")

    def as_zero(*_arguments: object) -> SignalReading:
        return SignalReading(0, "statm")

    def level_after_a_failed_reading() -> tuple[str, bool]:
        sidecar.tick()
        return sidecar.loop.watch.ladder.level.value, isinstance(sidecar.loop.watch.used.bytes, Absent)

    def put_in() -> None:
        sidecar.tick(1.0)  # a full look, which reads well
        monkeypatch.setattr(EngineProcess, "signal_reading", as_zero)

    monkeypatch.setattr(EngineProcess, "signal_reading", unread)
    noticed(level_after_a_failed_reading, ("Soft", True), put_in)


class _Endless(History):
    """A ring that never lets go."""

    def __init__(self) -> None:
        super().__init__(capacity=10**9)


def test_bug_11_a_history_without_bound(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug 11: after 1,500 samples a thousand are kept."""
    ready(sidecar, engine)

    def kept() -> int:
        for _ in range(1500):
            sidecar.loop.watch.look_quickly(sidecar.keeper.effective, sidecar.now)
        return len(sidecar.loop.watch.history)

    def put_in() -> None:
        monkeypatch.setattr(watch, "History", _Endless)
        sidecar.loop.watch = watch.Watch(sidecar.link, sidecar.loop.tally)

    noticed(kept, DEFAULT_CAPACITY, put_in)
