"""Bugs of comparable systems, put into our own code for a moment: the check that guards against each must notice.

Each test asserts that the same look at the sidecar that holds without the bug fails with it. Numbers are those of
the fault catalogue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest

from membudget_contract.control_api import FREE_PATH, Freed, Means
from membudget_contract.sidecar_api import ActionKind, ActionStatus
from membudget_sidecar import watch
from membudget_sidecar.acting import execution
from membudget_sidecar.acting.evidence import Evidence, Witnessed
from membudget_sidecar.deciding import entries, ladder
from membudget_sidecar.deciding.ladder_state import Decision, EntryKind
from membudget_sidecar.history import DEFAULT_CAPACITY, History
from membudget_sidecar.kernel.engine_process import EngineProcess
from membudget_sidecar.kernel.reading import Absent, SignalReading
from membudget_sidecar.kernel.sample import QuickReading
from sidecar.driven_ladder import Ladder
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
    """Bug 3: what was asked taken for what was freed makes an action effective that freed nothing."""
    ready(sidecar, engine)
    genuine = Witnessed.evidence
    engine.fill_to(85 * MIB)
    engine.set_mode(FREE_PATH, "claims")

    def first_status() -> ActionStatus:
        known = len(sidecar.records())
        sidecar.tick(100)
        sidecar.settle()
        return sidecar.records()[known].status

    def estimates(witnessed: Witnessed) -> Evidence:
        evidence = genuine(witnessed)
        assert isinstance(evidence.before.bytes, int)
        freed = SignalReading(evidence.before.bytes - 30 * MIB, evidence.before.source)
        return dataclasses.replace(evidence, after=freed)

    noticed(first_status, ActionStatus.INEFFECTIVE, lambda: monkeypatch.setattr(Witnessed, "evidence", estimates))


def test_bug_4_an_action_kind_that_nobody_carries_out(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug 4: a kind without an executor succeeds silently; every kind must reach the engine."""
    ready(sidecar, engine)
    genuine = cast("Any", execution.Execution)._ask

    def reached() -> list[str]:
        before = len(engine.requests(FREE_PATH))
        for means in Means:
            kind, plan = ActionKind(means.value), sidecar.keeper.effective
            sidecar.loop.actions.submit(execution.Order(kind, plan, 0, 0, "a test"))
        sidecar.settle()
        return [body["means"] for body in engine.requests(FREE_PATH)[before:]]

    def forgets_spill(runner: execution.Execution, order: execution.Order) -> object:
        if order.kind is ActionKind.SPILL:
            return Freed(owned_before_bytes=0, owned_after_bytes=0, entries=0, collections={}, exhausted=False)
        return genuine(runner, order)

    noticed(
        reached,
        [means.value for means in Means],
        lambda: monkeypatch.setattr(execution.Execution, "_ask", forgets_spill),
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

    def without_spill(*arguments: Any) -> Decision | None:
        decision: Decision | None = genuine(*arguments)
        return None if decision is not None and decision.kind is ActionKind.SPILL else decision

    noticed(asked_at_95_percent, ["Spill"], lambda: monkeypatch.setattr(ladder, "_rung_decision", without_spill))


def test_bug_5_a_spill_that_cannot_leaves_it_at_that(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug 5: with nothing to spill to, the eviction above runs at once; a ladder that does not escalate shows."""
    ready(sidecar, engine)
    engine.set_mode(FREE_PATH, "claims")
    engine.fill_to(95 * MIB)

    def asked_at_95_percent() -> list[str]:
        before = len(engine.requests(FREE_PATH))
        sidecar.tick(100)
        sidecar.settle()
        return [body["means"] for body in engine.requests(FREE_PATH)[before:]][:2]

    def fresh_and_content() -> None:
        monkeypatch.setattr(ladder, "_TOO_LITTLE", frozenset[ActionStatus]())
        sidecar.loop.watch.ladder = ladder.initial_state()

    noticed(asked_at_95_percent, ["Spill", "Evict"], fresh_and_content)


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

    def unread(*_arguments: object) -> QuickReading:
        absent = Absent("Permission denied")
        return QuickReading(SignalReading(absent, "statm"), absent)

    def as_zero(*_arguments: object) -> QuickReading:
        return QuickReading(SignalReading(0, "statm"), Absent("no limit"))

    def level_after_a_failed_reading() -> tuple[str, bool]:
        sidecar.tick()
        return sidecar.loop.watch.ladder.level.value, isinstance(sidecar.loop.watch.used.bytes, Absent)

    def put_in() -> None:
        sidecar.tick(1.0)  # a full look, which reads well
        monkeypatch.setattr(EngineProcess, "quick_reading", as_zero)

    monkeypatch.setattr(EngineProcess, "quick_reading", unread)
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
        sidecar.loop.watch = watch.Watch(sidecar.link, sidecar.loop.tally, lambda question: question())

    noticed(kept, DEFAULT_CAPACITY, put_in)


def test_bug_11_no_hysteresis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug 11: 79 to 81 percent for a minute is one transition; left at its entry it makes hundreds."""

    def transitions() -> int:
        driven = Ladder()
        for tick in range(600):
            driven.see(79 + 2 * (tick % 2), after=0.1)
        return driven.state.transitions

    def at_once(kind: EntryKind, signal: int, entry: int, *_release_and_plan: object) -> entries.Entry:
        return entries.Entry(kind, signal >= entry, signal < entry, signal < entry, entry)

    noticed(transitions, 1, lambda: monkeypatch.setattr(entries, "_by_bytes", at_once))


def test_bug_11_a_loop_of_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug 11: without the pause after nothing was left, an emergency asks at every look."""

    def tries() -> int:
        driven, tried = Ladder(), 0
        for _ in range(100):
            tried += len(driven.see(99, after=0.1))
            if driven.state.in_flight is not None:
                driven.end(ActionStatus.INEFFECTIVE, exhausted=True, after=0)
        return tried

    noticed(tries, 1, lambda: monkeypatch.setattr(ladder, "EXHAUSTED_SECONDS", 0.0))
