"""What came of actions that freed what was asked: pages read again, requests slowed down (R-S06).

Covers: the readings before, soon after and later, in a thread of its own, so that no look holds up the next action.
Does not judge them (`verification`), nor back off (`ladder`). The verdict comes LATER_SECONDS after the action; where
actions follow each other sooner than that, all are held against the requests before the first of them.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from membudget_contract.control_api import RECENT_SECONDS, Report, RequestReport
from membudget_sidecar.deciding.verification import LASTING_SECONDS, SLOW_SECONDS, Latency, Refaulting, judge_harm
from membudget_sidecar.errors import EngineRefused, EngineUnreachable
from membudget_sidecar.kernel.engine_process import EngineProcess
from membudget_sidecar.kernel.reading import Absent, Reading
from membudget_sidecar.kernel.sample import SHARED

LATER_SECONDS: Final = SLOW_SECONDS + RECENT_SECONDS + 1
"""A report's quantiles are of the last RECENT_SECONDS and the running one: so late they hold no request that ended
within SLOW_SECONDS of the action. What is still slow in them was slow for longer."""
FOLLOWED_AT_MOST: Final = 16
"""Of actions that follow each other faster than that nobody could tell which one did harm."""
STOP_SECONDS: Final = 2.0

log = logging.getLogger(__name__)

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Eve:
    """What was read before an action; `at` in monotonic seconds."""

    process: EngineProcess
    at: float
    refaults: Reading
    requests: RequestReport | None


@dataclass(slots=True, eq=False)
class _Case(Generic[Subject]):
    subject: Subject
    freed_bytes: int
    eve: Eve
    ended_at: float
    soon: Reading | None = None
    soon_at: float = 0.0

    def due(self, soon_seconds: float, later_seconds: float) -> float:
        return self.ended_at + (soon_seconds if self.soon is None else later_seconds)


class Aftermath(Generic[Subject]):
    """Follows actions. `harmed` is called in its thread with the subject and what got worse.

    `report` asks the engine, in this thread; an engine that does not answer says nothing about its requests.
    """

    def __init__(
        self,
        report: Callable[[], Report],
        harmed: Callable[[Subject, str], None],
        *,
        clock: Callable[[], float],
        soon_seconds: float = LASTING_SECONDS,
        later_seconds: float = LATER_SECONDS,
    ) -> None:
        self._report = report
        self._harmed = harmed
        self._clock = clock
        self._soon_seconds = soon_seconds
        self._later_seconds = later_seconds
        self._cases: list[_Case[Subject]] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="aftermath", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End without the verdicts that are due later."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    @property
    def cases(self) -> list[Subject]:
        """Those without a verdict yet, oldest first."""
        with self._changed:
            return [case.subject for case in self._cases]

    def eve(self, process: EngineProcess, report: Report | None) -> Eve:
        """Read before an action; `report` is the last one known."""
        with self._changed:
            first = self._cases[0].eve.requests if self._cases else None
        requests = first or (report.requests if report is not None else None)
        return Eve(process, self._clock(), _refaults(process), requests)

    def follow(self, subject: Subject, freed_bytes: int, eve: Eve) -> None:
        """An action ended now and freed what was asked."""
        if isinstance(eve.refaults, Absent) and eve.requests is None:
            return
        with self._changed:
            if len(self._cases) < FOLLOWED_AT_MOST:
                self._cases.append(_Case(subject, freed_bytes, eve, self._clock()))
                self._changed.notify()

    def _work(self) -> None:
        while (case := self._next()) is not None:
            try:
                self._look(case)
            except Exception:  # a defect here must not end what watches over all later actions
                log.exception("what came of an action could not be judged")
                self._forget(case)

    def _next(self) -> _Case[Subject] | None:
        """The case that is due, once it is; None when all ends."""
        with self._changed:
            while not self._stopped:
                if not self._cases:
                    self._changed.wait()
                    continue
                case = min(self._cases, key=self._due)
                wait = self._due(case) - self._clock()
                if wait <= 0:
                    return case
                self._changed.wait(wait)
        return None

    def _due(self, case: _Case[Subject]) -> float:
        return case.due(self._soon_seconds, self._later_seconds)

    def _look(self, case: _Case[Subject]) -> None:
        refaults, now = _refaults(case.eve.process), self._clock()
        if case.soon is None:
            case.soon, case.soon_at = refaults, now
            return
        refaulting = Refaulting(case.eve.refaults, case.soon, refaults, case.soon_at - case.eve.at, now - case.soon_at)
        harm = judge_harm(case.freed_bytes, refaulting, mmap.PAGESIZE, self._latency(case.eve.requests))
        if harm is not None:
            self._harmed(case.subject, harm)
        self._forget(case)

    def _forget(self, case: _Case[Subject]) -> None:
        with self._changed:
            self._cases.remove(case)

    def _latency(self, before: RequestReport | None) -> Latency:
        if before is None:
            return Latency(None, None, 0)
        try:
            after = self._report().requests
        except (EngineUnreachable, EngineRefused) as error:
            log.info("requests after an action are not known: %s", error)
            after = None
        if after is None:
            return Latency(before.p99_microseconds, None, 0)
        return Latency(before.p99_microseconds, after.p99_microseconds, after.count - before.count)


def _refaults(process: EngineProcess) -> Reading:
    """Of the engine's own cgroup: in one shared with others nobody knows whose pages were read again."""
    cgroup = process.cgroup
    if isinstance(cgroup, Absent):
        return cgroup
    if cgroup.shared:
        return SHARED
    reading = cgroup.read()
    return reading if isinstance(reading, Absent) else reading.refaults
