"""What came of an action is looked at later, in a thread beside the queue; the seconds are made short here (R-S06)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from membudget_contract.control_api import GcReport, Report, RequestReport
from membudget_sidecar.acting import aftermath
from membudget_sidecar.acting.aftermath import Aftermath
from membudget_sidecar.errors import EngineUnreachable
from membudget_sidecar.kernel.engine_process import EngineProcess, find_engine_process
from membudget_sidecar.kernel.reading import Absent
from sidecar.fake_engine import eventually
from sidecar.kernel_tree import PID, PROCESS, V2_FILES, V2_STAT, build

MIB = 1 << 20
SOON, LATER = 0.05, 0.25
CALM = RequestReport(count=1000, p50_microseconds=500, p99_microseconds=2_000)
SLOW = RequestReport(count=1500, p50_microseconds=500, p99_microseconds=60_000)


def report_of(requests: RequestReport | None) -> Report:
    """A runtime's report that tells nothing but how requests fare."""
    return Report(
        pid=PID,
        managed_bytes=0,
        room_bytes=None,
        plan_hash=None,
        refused=0,
        requests=requests,
        components=(),
        collections=(),
        gc=GcReport(collections=0, collected=0),
    )


class Followed:
    """A recorded engine in a cgroup of its own, and what its aftermath told."""

    def __init__(self, folder: Path) -> None:
        member = {"cgroup": "0::/pod/engine\n"}
        proc = build(folder / "proc", {str(PID): {**PROCESS, **member}, "self": {"cgroup": "0::/pod/sidecar\n"}})
        self._stat = build(folder / "cgroup", {"pod": {"engine": V2_FILES}}) / "pod/engine/memory.stat"
        self.process: EngineProcess = find_engine_process(proc, folder / "cgroup", PID)
        self.told: list[tuple[str, str]] = []
        self.answer: Callable[[], Report] = lambda: report_of(CALM)
        self.looks = 0
        self.aftermath = Aftermath[str](
            self._report,
            lambda subject, harm: self.told.append((subject, harm)),
            clock=time.monotonic,
            soon_seconds=SOON,
            later_seconds=LATER,
        )

    def refault(self, pages: int) -> None:
        """The kernel counts so many pages read again in all."""
        self._stat.write_text(
            V2_STAT.replace("workingset_refault_file 6500", f"workingset_refault_file {6500 + pages}")
        )

    def act(self, name: str, *, pages: int = 0, known: RequestReport | None = CALM) -> None:
        """An action that frees 10 MiB, after which so many pages are read again."""
        eve = self.aftermath.eve(self.process, report_of(known))
        self.refault(pages)
        self.aftermath.follow(name, 10 * MIB, eve)

    def wait(self) -> list[tuple[str, str]]:
        """Until a report was asked for; what was told, which is before the next look."""
        eventually(lambda: self.looks > 0, "the later look")
        eventually(lambda: not self.aftermath.cases, "the verdict")
        return self.told

    def _report(self) -> Report:
        self.looks += 1
        return self.answer()


@pytest.fixture
def followed(tmp_path: Path) -> Generator[Followed]:
    """Started; ended after the test."""
    made = Followed(tmp_path)
    made.aftermath.start()
    yield made
    made.aftermath.stop()


def test_pages_that_are_read_again_are_told_with_their_action(followed: Followed) -> None:
    """R-S06: 6 of 10 MiB within the second, counted by the cgroup of the engine alone."""
    followed.act("a Cleanup", pages=1536)
    ((subject, harm),) = followed.wait()
    assert ("a Cleanup", "6291456 of 10485760 freed bytes were read again within 1 s") == (subject, harm)


def test_requests_that_stay_slow_are_told(followed: Followed) -> None:
    """R-S06: held against the last report before the action."""
    followed.answer = lambda: report_of(SLOW)
    followed.act("an Evict")
    ((subject, harm),) = followed.wait()
    assert ("an Evict", True) == (subject, "p99 60.0 ms, 2.0 ms before" in harm)


def test_an_action_without_harm_is_not_told(followed: Followed) -> None:
    """R-S06: some pages, and requests as before."""
    followed.act("an Evict", pages=100)
    assert [] == followed.wait()


def test_an_engine_that_does_not_answer_is_not_accused(followed: Followed) -> None:
    """R-S06: unknown is no harm, and no end of the thread."""

    def away() -> Report:
        raise EngineUnreachable("gone")

    followed.answer = away
    followed.act("an Evict")
    assert [] == followed.wait()
    followed.looks, followed.answer = 0, lambda: report_of(SLOW)
    followed.act("another")
    assert ["another"] == [subject for subject, _ in followed.wait()]


def test_a_defect_in_one_verdict_leaves_the_next_ones(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R-S06: whoever watches must not die silently."""

    def broken(*_arguments: object) -> str:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(aftermath, "judge_harm", broken)
        followed.act("an Evict")
        assert [] == followed.wait()
    followed.looks = 0
    followed.act("another", pages=2000)
    assert ["another"] == [subject for subject, _ in followed.wait()]
    assert "could not be judged" in caplog.text


def test_actions_in_a_row_are_held_against_the_requests_before_the_first(followed: Followed) -> None:
    """R-S06: or each would find the harm of the one before as usual."""
    followed.answer = lambda: report_of(SLOW)
    followed.act("first")
    followed.act("second", known=SLOW)
    eventually(lambda: len(followed.told) == 2, "both verdicts")
    assert ["first", "second"] == [subject for subject, _ in followed.told]


def test_what_cannot_be_read_is_not_followed(followed: Followed) -> None:
    """R-S06: no cgroup of its own and no report of requests: there is nothing to look at later."""
    shared = EngineProcess(followed.process.process, Absent("no cgroup"))
    eve = followed.aftermath.eve(shared, None)
    followed.aftermath.follow("an Evict", MIB, eve)
    assert [] == followed.aftermath.cases


def test_no_more_are_followed_than_can_be_told_apart(followed: Followed) -> None:
    """R-S06: bounded, whatever an emergency does."""
    for number in range(aftermath.FOLLOWED_AT_MOST + 5):
        followed.act(str(number))
    assert len(followed.aftermath.cases) <= aftermath.FOLLOWED_AT_MOST


def test_stop_does_not_wait_for_verdicts(tmp_path: Path) -> None:
    """R-S12: SIGTERM ends it at once, also when it was never started."""
    before = set(threading.enumerate())
    Followed(tmp_path / "idle").aftermath.stop()
    followed = Followed(tmp_path)
    followed.aftermath.start()
    followed.act("an Evict", pages=9000)
    followed.aftermath.stop()
    assert [] == followed.told
    assert set() == set(threading.enumerate()) - before
