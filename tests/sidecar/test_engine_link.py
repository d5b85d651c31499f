"""The engine is found, followed over restarts, and never taken for what it is not (fault 42, fault 54)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from membudget_contract.control_api import REPORT_PATH
from membudget_contract.policy import Signal
from membudget_sidecar.acting.engine_link import ASK_AGAIN_SECONDS, REPORT_FRESH_SECONDS, EngineLink
from membudget_sidecar.kernel.engine_process import EngineProcess
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent, Reading
from membudget_sidecar.settings import SidecarSettings
from sidecar.fake_engine import FakeEngine

MIB = 1 << 20
RSS = Signal.RESIDENT_SET_SIZE


@pytest.fixture
def link(tmp_path: Path) -> Iterator[EngineLink]:
    """A link to the socket in tmp_path, whoever listens there."""
    made = EngineLink(SidecarSettings(tmp_path, tmp_path / "state", None))
    yield made
    made.client.close()


def test_before_the_engine_there_is_nobody(link: EngineLink) -> None:
    """R-S12: the sidecar starts first, and says that it waits."""
    assert (False, None, "WaitingForEngine") == (link.find(), link.process, link.state)


def test_the_process_behind_the_socket_is_measured(link: EngineLink, engine: FakeEngine) -> None:
    """Design, sources: the pid of SO_PEERCRED, and the kernel's figures of it."""
    assert link.find()
    assert link.process is not None
    engine.fill_to(60 * MIB)
    reading = link.process.signal_reading(RSS).bytes
    assert engine.pid == link.process.pid
    assert reading == pytest.approx(engine.resident(), abs=MIB)
    assert not link.find()


def test_a_restart_is_found_and_the_old_process_is_absent(link: EngineLink, engine: FakeEngine) -> None:
    """Fault 54: a new pid; figures of the old one are absent, not the new one's."""
    link.find()
    old = link.process
    assert old is not None
    engine.kill()
    assert (False, "Unreachable") == (link.find(), link.state)
    assert isinstance(old.signal_reading(RSS).bytes, Absent)
    engine.start()
    found = link.find()
    assert link.process is not None
    assert (True, engine.pid) == (found, link.process.pid)
    assert isinstance(old.verified_reading(RSS).bytes, Absent)


def test_a_second_engine_on_the_path_replaces_one_that_lives(
    link: EngineLink, engine: FakeEngine, tmp_path: Path
) -> None:
    """Fault 54: the socket file tells, though the process before is still there."""
    link.find()
    second = FakeEngine(tmp_path).start()
    try:
        assert link.find()
        assert link.process is not None
        assert second.pid == link.process.pid != engine.pid
    finally:
        second.kill()


def test_a_frozen_engine_is_still_known_and_measured(link: EngineLink, engine: FakeEngine) -> None:
    """Fault 43: SIGSTOP stops its answers, not the kernel's figures; it is not sent a probe at every look."""
    link.find()
    with engine.frozen():
        link.ask_report(10.0)
        for _ in range(30):
            assert not link.find()
        assert link.process is not None
        assert (None, "Unreachable") == (link.report, link.state)
        assert isinstance(link.process.verified_reading(RSS).bytes, int)
    link.ask_report(20.0)  # accepted after all that came before it
    assert "Connected" == link.state
    assert 3 == engine.connections()  # the first look, a question without answer, and this one


def test_after_a_question_without_answer_the_next_waits(link: EngineLink, engine: FakeEngine) -> None:
    """Fault 43: an engine that does not answer does not take the loop's time at every look."""
    link.find()
    engine.set_mode(REPORT_PATH, "refuses")
    for second in range(10):
        link.ask_report(100.0 + second)
    assert 10 / ASK_AGAIN_SECONDS == len(engine.requests(REPORT_PATH))
    engine.set_mode(REPORT_PATH, "works")
    link.ask_report(110.0)
    assert ("Connected", engine.pid) == (link.state, link.report.pid if link.report else None)


def test_what_is_lost_and_found_is_logged_once(
    link: EngineLink, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """No log line at every tick while the engine is away."""
    caplog.set_level("INFO")
    link.find()
    engine.kill()
    for second in range(20):
        link.find()
        link.ask_report(float(second))
    engine.start()
    link.find()
    link.ask_report(30.0)
    shown = [record.message.split(",")[0].split(":")[0] for record in caplog.records]
    assert ["found the engine", "the engine does not answer", "found the engine", "the engine answers again"] == shown


def test_an_old_report_does_not_count(link: EngineLink, engine: FakeEngine) -> None:
    """Design, sources: no decision on a stale figure."""
    engine.hold_managed(MIB)
    link.find()
    link.ask_report(100.0)
    young, old = link.fresh_report(100.0 + REPORT_FRESH_SECONDS), link.fresh_report(100.1 + REPORT_FRESH_SECONDS)
    assert (MIB, None) == (young.managed_bytes if young else None, old)


class _Scripted:
    """A process whose resident set is read from a list."""

    resident_source = "scripted"

    def __init__(self, *readings: Reading) -> None:
        self.left = list(readings)

    def resident_bytes(self) -> Reading:
        return self.left.pop(0)


def verified(*readings: Reading) -> Reading:
    """What comes of these three readings."""
    process = cast("Process", _Scripted(*readings))
    return EngineProcess(process, Absent("no cgroup")).verified_reading(RSS, sleep=lambda _seconds: None).bytes


@pytest.mark.parametrize("readings", [(5, 1, 9), (1, 5, 9), (9, 1, 5), (5, 5, 100), (0, 5, 5)])
def test_a_verified_reading_is_the_median_of_three(readings: tuple[int, int, int]) -> None:
    """R-S04: one reading that is off decides nothing."""
    assert 5 == verified(*readings)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_verified_reading_is_absent_when_one_of_the_three_is(place: int) -> None:
    """R-S01: unknown is not zero, and not the mean of the others."""
    readings: list[Reading] = [5, 5, 5]
    readings[place] = Absent("gone")
    assert Absent("gone") == verified(*readings)
