"""The client of the control socket gives up in time, whatever the other end does (fault 43, fault 91)."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import BUDGETS_PATH, FREE_PATH, REPORT_PATH, FreeRequest, Means, Room, budgets_of
from membudget_contract.resolve import resolve
from membudget_sidecar.acting.control_client import ControlClient
from membudget_sidecar.errors import EngineRefused, EngineUnreachable
from sidecar.fake_engine import FakeEngine

MIB = 1 << 20
SECONDS = 0.4


@pytest.fixture
def client(engine: FakeEngine) -> Generator[ControlClient]:
    """A client with a short time limit."""
    made = ControlClient(engine.socket, SECONDS)
    yield made
    made.close()


def test_every_message_of_the_contract_goes_there_and_back(engine: FakeEngine, client: ControlClient) -> None:
    """Design, control socket: report, budgets, room, free."""
    engine.hold_managed(5 * MIB)
    budgets = budgets_of(resolve(compile_policy(None), environment={}, limit=None))
    client.apply(budgets)
    client.tell_room(Room(room_bytes=1))
    freed = client.free(FreeRequest(means=Means.EVICT, target_bytes=2 * MIB))
    report = client.report()
    assert (engine.pid, 3 * MIB, budgets.plan_hash) == (report.pid, report.managed_bytes, report.plan_hash)
    assert (5 * MIB, 3 * MIB, 2) == (freed.owned_before_bytes, freed.owned_after_bytes, freed.entries)
    assert engine.requests(BUDGETS_PATH)[0]["live"] is True


@pytest.mark.timeout(10)
@pytest.mark.parametrize("mode", ["hangs", "drips"])
def test_a_slow_engine_costs_no_more_than_the_time_limit(engine: FakeEngine, client: ControlClient, mode: str) -> None:
    """Fault 43: silent, or a byte every 50 ms, which a limit for each read would wait for to the end."""
    engine.set_mode(REPORT_PATH, mode)
    started = time.monotonic()
    with pytest.raises(EngineUnreachable, match="timed out"):
        client.report()
    assert SECONDS * 0.9 < time.monotonic() - started < SECONDS * 3


@pytest.mark.parametrize(
    ("mode", "says"),
    [("garbage", "malformed"), ("huge", "more than 1048576 bytes"), ("hangs up", "closed connection without response")],
)
def test_an_answer_that_is_none_is_unreachable(engine: FakeEngine, client: ControlClient, mode: str, says: str) -> None:
    """Fault 91: garbage, 2 MB and nothing at all are errors with a reason, not figures."""
    engine.set_mode(REPORT_PATH, mode)
    with pytest.raises(EngineUnreachable, match=f"(?i){REPORT_PATH}: .*{says}"):
        client.report()
    engine.set_mode(REPORT_PATH, "works")
    assert engine.pid == client.report().pid


def test_a_refusal_carries_the_engine_s_own_reason(engine: FakeEngine, client: ControlClient) -> None:
    """R-S04: the record of a failed action says what the engine said."""
    engine.set_mode(FREE_PATH, "refuses")
    with pytest.raises(EngineRefused, match=r"^Busy: not now$"):
        client.free(FreeRequest(means=Means.SPILL, target_bytes=1))


def test_a_restarted_engine_is_asked_over_a_new_connection(engine: FakeEngine, client: ControlClient) -> None:
    """Fault 54: a kept connection that ended costs no answer."""
    client.report()
    engine.kill()
    engine.start()
    assert engine.pid == client.report().pid


def test_a_request_that_was_not_answered_is_not_sent_twice(engine: FakeEngine, client: ControlClient) -> None:
    """R-S04: on a new connection the engine may have done it; only an ended kept one is tried again."""
    engine.set_mode(FREE_PATH, "hangs up")
    with pytest.raises(EngineUnreachable):
        client.free(FreeRequest(means=Means.EVICT, target_bytes=MIB))
    assert 1 == len(engine.requests(FREE_PATH))


def test_the_peer_is_known_from_the_kernel(engine: FakeEngine, client: ControlClient) -> None:
    """Design, sources: the pid comes from SO_PEERCRED, not from what the engine says of itself."""
    engine.set_mode(REPORT_PATH, "garbage")
    assert engine.pid == client.peer_pid()


def test_nobody_there_is_said_with_the_path(tmp_path: Path) -> None:
    """R-S12: the sidecar may start first."""
    client = ControlClient(tmp_path / "engine.sock", SECONDS)
    with pytest.raises(EngineUnreachable, match=r"engine\.sock: .*No such file"):
        client.peer_pid()
    with pytest.raises(EngineUnreachable, match=r"engine\.sock /v1/report: .*No such file"):
        client.report()
