"""A new value in the plan asks for one reload; driven by hand beside a fake engine."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from membudget_contract.control_api import RELOAD_PATH
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.plans.reload_follower import KEPT_RELOAD
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import HandDriven, policy_text


@pytest.fixture
def successor(tmp_path: Path) -> Generator[Callable[[], HandDriven]]:
    """The sidecar of the next life, over the same folders."""
    started: list[HandDriven] = []

    def start() -> HandDriven:
        started.append(HandDriven(tmp_path, action_seconds=1.0))
        return started[-1]

    yield start
    for driven in started:
        driven.close()


def asked(sidecar: HandDriven, index: str | None, mode: str = "Enforce") -> None:
    """The policy of that moment, taken and carried out, and a few more looks at it."""
    spec: dict[str, Any] = {"mode": mode} if index is None else {"mode": mode, "reload": {"index": index}}
    sidecar.write_policy(policy_text(**spec))
    for _ in range(3):
        sidecar.tick(1.0)
        sidecar.settle()


def reloads(sidecar: HandDriven) -> list[ActionRecord]:
    """Oldest first."""
    return [record for record in sidecar.records() if record.kind is ActionKind.RELOAD]


def test_each_new_value_asks_for_one_reload(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-P09: and its record says which value it was."""
    for index in (None, "build-1", "build-1", "build-2", None, "build-2", "build-1"):
        asked(sidecar, index)
    causes = [f"the plan asks to reload the index: {index}" for index in ("build-1", "build-2", "build-1")]
    assert [(ActionStatus.DONE, cause) for cause in causes] == [(each.status, each.cause) for each in reloads(sidecar)]
    assert 3 == len(engine.requests(RELOAD_PATH))
    assert 3 == sidecar.loop.tally.actions[ActionKind.RELOAD, ActionStatus.DONE]


def test_a_value_that_was_asked_for_is_not_asked_for_by_the_next_life_of_the_sidecar(
    sidecar: HandDriven, engine: FakeEngine, successor: Callable[[], HandDriven]
) -> None:
    """R-P09: it is kept beside the last plan; another value is asked for as before."""
    asked(sidecar, "build-1")
    sidecar.close()
    later = successor()
    asked(later, "build-1")
    assert ([], 1) == (reloads(later), len(engine.requests(RELOAD_PATH)))
    asked(later, "build-2")
    assert 2 == len(engine.requests(RELOAD_PATH))


def test_an_engine_that_restarted_is_not_asked_for_the_same_value(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-P09: it has loaded what is newest when it started."""
    asked(sidecar, "build-1")
    engine.kill()
    engine.start()
    asked(sidecar, "build-1")
    assert ([], 1) == (engine.requests(RELOAD_PATH), len(reloads(sidecar)))


def test_a_value_waits_for_an_engine(sidecar: HandDriven, tmp_path: Path) -> None:
    """R-P09: nobody could be asked before."""
    asked(sidecar, "build-1")
    assert [] == reloads(sidecar)
    late = FakeEngine(tmp_path).start()
    asked(sidecar, "build-1")
    assert 1 == len(late.requests(RELOAD_PATH))
    late.kill()


def test_a_value_seen_in_observe_mode_is_recorded_and_over(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-P09, R-P12: to enforce later is no new value, and must not reload by surprise."""
    asked(sidecar, "build-1", mode="Observe")
    asked(sidecar, "build-1")
    assert [ActionStatus.OBSERVED] == [each.status for each in reloads(sidecar)]
    assert [] == engine.requests(RELOAD_PATH)
    asked(sidecar, "build-2")
    assert 1 == len(engine.requests(RELOAD_PATH))


def test_a_reload_that_fails_is_told_and_not_repeated(
    sidecar: HandDriven, engine: FakeEngine, successor: Callable[[], HandDriven]
) -> None:
    """R-P09: not in this life and not in the next; the engine has kept what it served."""
    engine.set_mode(RELOAD_PATH, "refuses")
    asked(sidecar, "build-1")
    (record,) = reloads(sidecar)
    assert (ActionStatus.FAILED, True) == (record.status, bool(record.error))
    assert 1 == sidecar.loop.tally.actions[ActionKind.RELOAD, ActionStatus.FAILED]
    sidecar.close()
    asked(successor(), "build-1")
    assert 1 == len(engine.requests(RELOAD_PATH))


def test_a_sidecar_that_ended_before_the_reload_did_asks_again(
    sidecar: HandDriven, engine: FakeEngine, successor: Callable[[], HandDriven]
) -> None:
    """R-P09: a reload twice changes nothing, one that never came would."""
    engine.set_mode(RELOAD_PATH, "hangs")
    sidecar.write_policy(policy_text(reload={"index": "build-1"}))
    sidecar.tick(1.0)
    eventually(lambda: len(engine.requests(RELOAD_PATH)) == 1, "the engine was asked")
    sidecar.close()
    engine.set_mode(RELOAD_PATH, "works")
    later = successor()
    asked(later, "build-1")
    assert [ActionStatus.DONE] == [each.status for each in reloads(later)]


@pytest.mark.parametrize("damage", [b"", b"membudget-kept 1 KeptReload 0\n{}", b"\xff" * 100])
def test_a_damaged_memory_of_the_last_value_costs_one_reload_and_nothing_else(
    sidecar: HandDriven, engine: FakeEngine, successor: Callable[[], HandDriven], damage: bytes
) -> None:
    """R-P09: torn or foreign; it is written anew."""
    asked(sidecar, "build-1")
    sidecar.close()
    kept = sidecar.settings.state_folder / KEPT_RELOAD
    kept.write_bytes(damage)
    later = successor()
    asked(later, "build-1")
    assert 2 == len(engine.requests(RELOAD_PATH))
    later.close()
    asked(successor(), "build-1")
    assert 2 == len(engine.requests(RELOAD_PATH))


def test_a_disk_that_takes_nothing_does_not_make_it_ask_again(sidecar: HandDriven, engine: FakeEngine) -> None:
    """R-P09: within one life memory is enough."""
    (sidecar.settings.state_folder / KEPT_RELOAD).mkdir()
    asked(sidecar, "build-1")
    asked(sidecar, "build-1")
    assert 1 == len(engine.requests(RELOAD_PATH))
