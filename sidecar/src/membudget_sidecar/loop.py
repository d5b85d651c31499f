"""The sidecar's loop: when to look, and what follows from a look.

Covers: pace, waking, handing decisions to the actions and their results back. Does not look and decide (`watch`),
act (`actions`), follow policies (`plan_follower`) or serve (`api`, `servers`). One thread; others wake it and read.

Pace: a full look every `intervalSeconds` while the signal lies well below the soft entry; near it the signal every
100 ms and a full look every second. Policy file, engine and an unknown signal are looked at every second in any case.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from membudget_contract.sidecar_api import ActionKind, ActionRecord
from membudget_sidecar.actions import ActionRunner, Order
from membudget_sidecar.engine_link import EngineLink
from membudget_sidecar.ladder import Decision
from membudget_sidecar.oversights import Oversights
from membudget_sidecar.plan_follower import PlanFollower
from membudget_sidecar.plan_keeper import PlanKeeper
from membudget_sidecar.policy_file import PolicyFile
from membudget_sidecar.reading import Absent
from membudget_sidecar.tally import Tally
from membudget_sidecar.watch import Watch

NEAR_PERCENT: Final = 70
NEAR_POINTS: Final = 10
"""Near is 70 % of the budget, or ten points below the soft entry where a policy sets that lower."""
FAST_SECONDS: Final = 0.1
SLOW_SECONDS: Final = 1.0

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
    ) -> None:
        self.link = link
        self.keeper = keeper
        self.tally = Tally()
        self.watch = Watch(link, self.tally)
        self.oversights = Oversights(keeper.environment)
        self.actions = runner(self._action_ended)
        self._clock = clock
        self._follower = PlanFollower(keeper, policy_file)
        self._results: queue.SimpleQueue[tuple[Order, ActionRecord]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._look_asked = threading.Event()
        self._reload_asked = threading.Event()
        self._stopped = threading.Event()
        self._slow_at = self._full_at = -float("inf")
        self.looked_at = clock()
        """When the last look ended, in monotonic seconds: a loop that is stuck or dead leaves it behind."""

    def run(self) -> None:
        """Until `stop`."""
        self.actions.start()
        while not self._stopped.is_set():
            cpu = time.thread_time()
            try:
                pause = self.tick(self._clock())
            except Exception:  # a defect in one look must not leave the engine unwatched
                log.exception("a look failed")
                pause = SLOW_SECONDS
            self.looked_at = self._clock()
            self.tally.sample_cpu_seconds += time.thread_time() - cpu
            self._wake.wait(pause)
            self._wake.clear()
        self.actions.stop()

    def stop(self) -> None:
        """End after the look in work."""
        self._stopped.set()
        self._wake.set()

    def wake(self) -> None:
        """Look at everything now."""
        self._look_asked.set()
        self._wake.set()

    def reload(self) -> None:
        """Read the policy file again, changed or not; safe in a signal handler."""
        self._reload_asked.set()
        self.wake()

    def tick(self, now: float) -> float:
        """One look; seconds until the next."""
        asked = self._look_asked.is_set()
        self._look_asked.clear()
        self._take_results(now)
        if asked or now - self._slow_at >= SLOW_SECONDS:
            self._slow_at = now
            asked = self._follow(now) or asked
        self._look(now, fully=asked or now - self._full_at >= self._full_seconds())
        resize = self._follower.resize(self.link.report, self.watch.used.bytes, now)
        if resize is not None:
            self.actions.submit(resize)
        return FAST_SECONDS if self._is_near() else SLOW_SECONDS

    def _look(self, now: float, *, fully: bool) -> None:
        decisions: tuple[Decision, ...] = ()
        if fully:
            self._full_at = now
            decisions = self.watch.look_fully(self._follower.plan, now)
            self.oversights.look(self._follower.plan, self.link.report, now)
        elif self._is_near():
            decisions = self.watch.look_quickly(self._follower.plan, now)
        for decision in decisions:
            self._hand_over(decision)

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
        """Policy, engine, plan; True when one of them moved, so that the last look says little."""
        asked = self._reload_asked.is_set()
        self._reload_asked.clear()
        self._follower.read_policy(self.watch.floor, asked=asked)
        found = self.link.find()
        if found:
            self._follower.forget_engine()
            self.watch.forget_engine()
            self.oversights.forget_engine()
        before = self._follower.follow(self.watch.limit, self.watch.floor)
        if before is self._follower.plan:
            return found
        self.watch.plan_moved(before, self._follower.plan, now)
        return True

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

    def _action_ended(self, order: Order, record: ActionRecord) -> None:
        """In the thread of the actions."""
        self._results.put((order, record))
        self.wake()

    def _take_results(self, now: float) -> None:
        while not self._results.empty():
            order, record = self._results.get()
            self.tally.count_action(record)
            freed = "unknown" if record.freed_bytes is None else record.freed_bytes
            why = record.error or order.cause
            log.info("%s %s: asked %d, freed %s, %s", record.kind, record.status, record.asked_bytes, freed, why)
            if order.kind is ActionKind.RESIZE:
                self._follower.resize_ended(now)
            if order.decision is not None:
                self.watch.action_ended(order.decision, record.status, bool(record.exhausted), now)
