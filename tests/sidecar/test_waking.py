"""What ends a pause: time and a call; and questions that delay no look. Stalls for memory: `test_live_waking`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from membudget_contract.control_api import REPORT_PATH
from membudget_sidecar.acting.asker import Asker
from membudget_sidecar.loop import Loop
from membudget_sidecar.waking import Waking
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import HandDriven, policy_text

MIB = 1 << 20
HOST_PRESSURE = "/proc/pressure/memory"
LONG = 30.0


def test_a_pause_ends_by_itself_and_says_that_nothing_stalled() -> None:
    """R-S11: no hot loop."""
    started = time.monotonic()
    assert not Waking().wait(0.05)
    assert time.monotonic() - started >= 0.05


def test_a_call_ends_the_pause_it_falls_into_and_one_before_it_the_next_and_no_more() -> None:
    """R-S01: a wake-up is never lost, and a thousand of them are one."""
    waking = Waking()
    threading.Timer(0.05, waking.wake).start()
    started = time.monotonic()
    waking.wait(LONG)
    for _ in range(1000):
        waking.wake()
    waking.wait(LONG)
    assert time.monotonic() - started < LONG
    started = time.monotonic()
    waking.wait(0.05)
    assert time.monotonic() - started >= 0.05


def test_the_first_pressure_file_that_may_be_used_is_heeded(tmp_path: Path) -> None:
    """R-S01: one that is missing or takes no trigger is passed over; with none the pauses stand alone."""
    (tmp_path / "readable").write_text("some avg10=0.00\n")
    (tmp_path / "readable").chmod(0o400)
    waking = Waking()
    missing = str(tmp_path / "missing")
    assert waking.heed_pressure([missing]) is None
    assert waking.heed_pressure([missing, str(tmp_path)]) is None
    assert not waking.wait(0.01)
    if Path(HOST_PRESSURE).exists():
        assert HOST_PRESSURE == waking.heed_pressure([missing, HOST_PRESSURE])


def test_an_engine_that_does_not_answer_delays_no_look(
    sidecar: HandDriven, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 43, R-S11: the thread looks ten times a second while a report hangs for its whole second."""
    monkeypatch.setattr(sidecar.loop, "_clock", time.monotonic)
    monkeypatch.setattr(sidecar.loop.actions, "start", lambda: None)  # it runs already
    sidecar.write_policy(policy_text(thresholds={"collect": {"percent": 100}}))
    engine.fill_to(78 * MIB)
    engine.set_mode(REPORT_PATH, "hangs")
    gaps = _gaps_between_looks(sidecar.loop, while_asked=lambda: bool(engine.requests(REPORT_PATH)))
    assert max(gaps) < 0.5


def _gaps_between_looks(loop: Loop, while_asked: Callable[[], bool]) -> list[float]:
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        eventually(while_asked, "a report was asked for")
        looked: list[float] = []
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            if not looked or looked[-1] != loop.looked_at:
                looked.append(loop.looked_at)
            time.sleep(0.001)
    finally:
        loop.stop()
        thread.join()
    return [later - earlier for earlier, later in itertools.pairwise(looked)]


def test_one_question_at_a_time_and_a_defect_in_one_does_not_end_the_asking() -> None:
    """R-S11: what is asked meanwhile is dropped, not queued behind an engine that does not answer."""
    asked: list[str] = []
    ended = threading.Semaphore(0)
    go_on = threading.Event()
    asker = Asker(ended.release)
    asker.ask(lambda: asked.append("at once"))
    asker.start()

    def first() -> None:
        asked.append("first")
        go_on.wait(LONG)
        raise ZeroDivisionError

    asker.ask(first)
    asker.ask(lambda: asked.append("dropped"))
    go_on.set()
    assert [ended.acquire(timeout=LONG) for _ in range(2)] == [True, True]
    asker.ask(lambda: asked.append("second"))
    assert ended.acquire(timeout=LONG)
    asker.stop()
    assert asked == ["at once", "first", "second"]
