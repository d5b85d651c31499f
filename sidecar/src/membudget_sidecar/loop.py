"""The sidecar's loop: when to look, and what follows from a look.

Covers: which look is due, handing decisions to the actions and their results back. Does not look and decide
(`watch`), act (`actions`), follow policies (`plan_follower`) or serve (`api`, `servers`). One thread; others wake it
and read. It never waits for the engine: questions are asked beside it (`asker`).

Two kinds of look. A quick one, signal and limit, each time: once a second at least, and as often as `pace` says from
the way to the first entry and the headroom. A full one every `intervalSeconds`, near the soft entry every second, and
whenever somebody asks. Policy file, engine and an unknown signal are looked at every second in any case.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.acting.actions import ActionRunner
from membudget_sidecar.acting.asker import Asker
from membudget_sidecar.acting.engine_link import EngineLink
from membudget_sidecar.acting.execution import Order
from membudget_sidecar.deciding.alert_facts import facts_of
from membudget_sidecar.deciding.alerts import Alerts
from membudget_sidecar.deciding.ladder_state import Decision
from membudget_sidecar.deciding.pace import FAST_SECONDS, SLOW_SECONDS, pause_seconds
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.plans.oversights import Oversights
from membudget_sidecar.plans.plan_follower import PlanFollower
from membudget_sidecar.plans.plan_keeper import PlanKeeper
from membudget_sidecar.plans.policy_file import PolicyFile
from membudget_sidecar.plans.reload_follower import ReloadFollower
from membudget_sidecar.recorder import Recorder
from membudget_sidecar.tally import Tally
from membudget_sidecar.waking import STALL_WINDOW_SECONDS, Waking
from membudget_sidecar.watch import Watch

NEAR_PERCENT: Final = 70
NEAR_POINTS: Final = 10
"""Near is 70 % of the budget, or ten points below the soft entry where a policy sets that lower: full looks come every
second, and every quick one stands in the history."""

log = logging.getLogger(__name__)


class Loop:
    """Other threads read what is public here, and call `wake`, `reload` and `stop`."""

    def __init__(
        self,
        link: EngineLink,
        keeper: PlanKeeper,
        policy_file: PolicyFile | None,
        *,
        runner: Callable[[Callable[[Order, ActionRecord], None]], ActionRunner],
        clock: Callable[[], float],
        recorder: Recorder | None = None,
        state_folder: Path | None = None,
    ) -> None:
        self.link = link
        self.keeper = keeper
        self.tally = Tally()
        self._waking = Waking()
        self._asker = Asker(self._answered)
        self.watch = Watch(link, self.tally, self._asker.ask)
        self.alerts = Alerts(time.time)
        self.oversights = Oversights(keeper.environment)
        self.actions = runner(self._action_ended)
        self._clock = clock
        self._recorder = recorder
        self._follower = PlanFollower(keeper, policy_file)
        self._reloads = ReloadFollower(state_folder)
        self._results: queue.SimpleQueue[tuple[Order, ActionRecord]] = queue.SimpleQueue()
        self._has_answered = threading.Event()
        self._look_asked = threading.Event()
        self._reload_asked = threading.Event()
        self._stopped = threading.Event()
        self._slow_at = self._full_at = self._stalled_at = -float("inf")
        if recorder is not None:
            recorder.plan(keeper.effective, clock())
        self.looked_at = clock()
        """When the last look ended, in monotonic seconds: a loop that is stuck or dead leaves it behind."""

    def run(self) -> None:
        """Until `stop`."""
        self.actions.start()
        self._asker.start()
        while not self._stopped.is_set():
            cpu = time.thread_time()
            try:
                pause = self.tick(self._clock())
            except Exception:  # a defect in one look must not leave the engine unwatched
                log.exception("a look failed")
                pause = SLOW_SECONDS
            self.looked_at = self._clock()
            self.tally.sample_cpu_seconds += time.thread_time() - cpu
            if self._waking.wait(pause):
                self.stalled(self._clock())
        self._asker.stop()
        self.actions.stop()
        if self._recorder is not None:
            self._recorder.close()

    def stop(self) -> None:
        """End after the look in work."""
        self._stopped.set()
        self._waking.wake()

    def wake(self) -> None:
        """Look at everything now."""
        self._look_asked.set()
        self._waking.wake()

    def reload(self) -> None:
        """Read the policy file again, changed or not; safe in a signal handler."""
        self._reload_asked.set()
        self.wake()

    def stalled(self, now: float) -> None:
        """Tasks waited for memory: look fast for a window of the kernel's, whatever the signal was."""
        self._stalled_at = now

    def tick(self, now: float) -> float:
        """One look; seconds until the next."""
        asked = self._look_asked.is_set()
        self._look_asked.clear()
        self._take_results(now)
        if asked or now - self._slow_at >= SLOW_SECONDS:
            self._slow_at = now
            asked = self._follow(now) or asked
        limit = self.watch.limit
        self._look(now, fully=asked or now - self._full_at >= self._full_seconds())
        if self.watch.limit != limit and self._follow_plan(now):
            self._full_at = -float("inf")  # the room is another one
        if self._has_answered.is_set():
            self._has_answered.clear()
            self._fully_seen(now)
        resize = self._follower.resize(self.link.report, self.watch.used.bytes, now)
        if resize is not None:
            self.actions.submit(resize)
        reload = self._reloads.reload(self._follower.plan, engine_is_there=self.link.process is not None)
        if reload is not None:
            self.actions.submit(reload)
        return self._pause(now)

    def _look(self, now: float, *, fully: bool) -> None:
        if fully:
            self._full_at = now
            decisions = self.watch.look_fully(self._follower.plan, now)
        else:
            decisions = self.watch.look_quickly(self._follower.plan, now, kept=self._is_near())
        if self._recorder is not None and self.watch.seen is not None:
            self._recorder.look(self.watch.seen)
        for decision in decisions:
            self._hand_over(decision)

    def _fully_seen(self, now: float) -> None:
        """The engine has answered a full look, or has not in its time: sample, report and ladder belong together."""
        plan, report = self._follower.plan, self.link.report
        self.oversights.look(plan, report, now)
        self.watch.suspect_leaks(plan.alerts, now)
        self.alerts.look(plan, facts_of(self.watch.seen, self.watch.sample, report, self.watch.leaks.suspects), now)

    def _pause(self, now: float) -> float:
        """Until the next look; an unknown signal is looked for at the slow pace."""
        used = self.watch.used.bytes
        if isinstance(used, Absent):
            return SLOW_SECONDS
        pause = pause_seconds(used, self.watch.limit, self._follower.plan)
        return min(pause, FAST_SECONDS) if now - self._stalled_at < STALL_WINDOW_SECONDS else pause

    def _is_near(self) -> bool:
        plan, used = self._follower.plan, self.watch.used.bytes
        near = min(NEAR_PERCENT, plan.thresholds.soft.percent - NEAR_POINTS)
        return isinstance(used, int) and used >= plan.percent_bytes(near)

    def _full_seconds(self) -> float:
        """An unknown signal may hide an emergency: it is looked for as often as a near one is checked."""
        if isinstance(self.watch.used.bytes, Absent) or self._is_near():
            return SLOW_SECONDS
        return self._follower.plan.sampling_interval_seconds

    def _follow(self, now: float) -> bool:
        """Policy, engine, plan; True when one of them moved, so that a quick look says little."""
        asked = self._reload_asked.is_set()
        self._reload_asked.clear()
        self._follower.read_policy(self.watch.floor, asked=asked)
        found = self.link.find()
        if found:
            self._follower.forget_engine()
            self.watch.forget_engine()
            self.oversights.forget_engine()
            self.alerts.forget_engine()
            self._heed_pressure()
        return self._follow_plan(now) or found

    def _follow_plan(self, now: float) -> bool:
        """The plan in force by the newest limit and floor; True when it is another one."""
        before = self._follower.follow(self.watch.limit, self.watch.floor)
        if before is self._follower.plan:
            return False
        self.watch.plan_moved(before, self._follower.plan, now)
        if self._recorder is not None:
            self._recorder.plan(self._follower.plan, now)
        return True

    def _heed_pressure(self) -> None:
        process = self.link.process
        path = self._waking.heed_pressure(process.pressure_files()) if process is not None else None
        log.info("stalls for memory bring looks forward: %s", path or "the kernel tells of none here")

    def _hand_over(self, decision: Decision) -> None:
        order = Order(
            kind=decision.kind,
            plan=self._follower.plan,
            asked_bytes=decision.bytes_to_free,
            goal_bytes=decision.goal_bytes,
            cause=decision.cause,
            decision=decision,
        )
        self.actions.submit(order)

    def _answered(self) -> None:
        """In the thread of the questions."""
        self._has_answered.set()
        self._waking.wake()

    def _action_ended(self, order: Order, record: ActionRecord) -> None:
        """In the thread of the actions."""
        self._results.put((order, record))
        self.wake()

    def _take_results(self, now: float) -> None:
        while not self._results.empty():
            order, record = self._results.get()
            self.tally.count_action(record)
            self.alerts.action_ended(record, now)
            freed = "unknown" if record.freed_bytes is None else record.freed_bytes
            why = record.harm or record.error or order.cause
            log.info("%s %s: asked %d, freed %s, %s", record.kind, record.status, record.asked_bytes, freed, why)
            if order.kind is ActionKind.RESIZE:
                self._follower.resize_ended(now)
            if order.by_plan:
                self._reloads.ended(order)
            if order.decision is not None:
                self.watch.action_ended(order.decision, record.status, bool(record.exhausted), now)
                if self._recorder is not None and record.status is not ActionStatus.HARMFUL:
                    self._recorder.action(order.decision, record, now)
