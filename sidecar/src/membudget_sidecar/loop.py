"""The sidecar's loop: look, decide, hand over.

Covers: when to look, following policy file and engine, telling the room, feeding the ladder. Does not decide
(`ladder`), act (`actions`) or serve (`api`, `servers`). One thread; other threads read its snapshots and wake it.

Pace: a full look every `intervalSeconds` while the signal lies below 70 % of the budget; above it the signal every
100 ms and a full look every second. The policy file and a missing engine are looked at every second in any case.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from membudget_contract.compile import compile_policy
from membudget_contract.control_api import Report, Room
from membudget_contract.errors import ContractError
from membudget_contract.plan import EffectivePlan, plan_hash
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.actions import ActionRunner, Order
from membudget_sidecar.engine_link import EngineLink
from membudget_sidecar.errors import EngineRefused, EngineUnreachable, QueueFull
from membudget_sidecar.history import History
from membudget_sidecar.ladder import Decision, Observation, finished, initial_state, plan_changed, step
from membudget_sidecar.plan_keeper import PlanKeeper
from membudget_sidecar.policy_file import PolicyFile
from membudget_sidecar.reading import Absent
from membudget_sidecar.sample import Sample, SignalReading
from membudget_sidecar.tally import Tally

NEAR_PERCENT: Final = 70
FAST_SECONDS: Final = 0.1
HOUSEKEEPING_SECONDS: Final = 1.0
ROOM_STEP_BYTES: Final = 1024 * 1024

log = logging.getLogger(__name__)


class Loop:
    """Snapshots for other threads: `sample`, `used`, `report`, `ladder`, `engine`. `wake` cuts a wait short."""

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
        self.history = History()
        self.ladder = initial_state()
        self.sample: Sample | Absent = Absent("no sample was taken yet")
        self.used = SignalReading(Absent("no sample was taken yet"), "none")
        self.report: Report | None = None
        self.engine = "WaitingForEngine"
        self.actions = runner(self._action_ended)
        self._policy_file = policy_file
        self._clock = clock
        self._plan = keeper.effective
        self._room_told: int | None = None
        self._resize_asked_for: str | None = None
        self._results: queue.SimpleQueue[tuple[Decision, ActionStatus, bool]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stopped = False
        self._reload_asked = False
        self._full_at = -float("inf")
        self._housekept_at = -float("inf")

    def run(self) -> None:
        """Until `stop`."""
        self.actions.start()
        while not self._stopped:
            cpu = time.thread_time()
            try:
                pause = self.tick(self._clock())
            except Exception:  # a defect in one look must not leave the engine unwatched
                log.exception("a look failed")
                pause = HOUSEKEEPING_SECONDS
            self.tally.sample_cpu_seconds += time.thread_time() - cpu
            self._wake.wait(pause)
            self._wake.clear()
        self.actions.stop()

    def stop(self) -> None:
        """End after the look in work."""
        self._stopped = True
        self._wake.set()

    def wake(self) -> None:
        """Look now."""
        self._housekept_at = -float("inf")
        self._wake.set()

    def reload(self) -> None:
        """Read the policy file again, changed or not; safe in a signal handler."""
        self._reload_asked = True
        self.wake()

    def tick(self, now: float) -> float:
        """One look; seconds until the next."""
        self._take_results(now)
        if now - self._housekept_at >= HOUSEKEEPING_SECONDS:
            self._housekept_at = now
            self._follow_policy_file()
            self._find_engine()
            self._follow_plan(now)
        near = self._is_near()
        if now - self._full_at >= (HOUSEKEEPING_SECONDS if near else self._plan.sampling_interval_seconds):
            self._full_at = now
            self._look_fully(now)
        elif near:
            self._see(now, self.link.signal_reading(self._plan.signal))
        return FAST_SECONDS if self._is_near() else HOUSEKEEPING_SECONDS

    def _is_near(self) -> bool:
        used = self.used.bytes
        return isinstance(used, int) and used >= self._plan.percent_bytes(NEAR_PERCENT)

    def _follow_policy_file(self) -> None:
        asked, self._reload_asked = self._reload_asked, False
        if self._policy_file is None or not (asked or self._policy_file.changed()):
            return
        try:
            self.keeper.adopt(compile_policy(self._policy_file.load()), self._floor_bytes())
            log.info("took %s", self._policy_file.path)
        except ContractError as error:
            self.keeper.refuse(str(error))
            log.warning("%s was not taken, the last good plan stays: %s", self._policy_file.path, error)

    def _floor_bytes(self) -> int | None:
        """What no action frees: unmanaged bytes and Critical data; None while it is not known."""
        unmanaged = self._unmanaged_bytes()
        if unmanaged is None or self.report is None:
            return None
        return unmanaged + sum(part.critical_bytes for part in self.report.components)

    def _find_engine(self) -> None:
        try:
            if self.link.find():
                log.info("found the engine, pid %d", self.link.process.pid if self.link.process else -1)
                self._full_at = -float("inf")
                self._resize_asked_for = None
            self.engine = "Connected"
        except EngineUnreachable as error:
            if self.engine == "Connected":
                log.warning("the engine does not answer: %s", error)
                self.engine = "Unreachable"
            self.report = None

    def _follow_plan(self, now: float) -> None:
        limit = self.sample.limit if isinstance(self.sample, Sample) else None
        plan = self.keeper.follow(limit if isinstance(limit, int) else None)
        if plan is not self._plan:
            old, self._plan = self._plan, plan
            if old.signal is not plan.signal:
                self.used = SignalReading(Absent("the signal changed, no sample yet"), "none")
                self.history = History()
                self._full_at = -float("inf")
            self.ladder = plan_changed(self.ladder, old, plan, now)
        self._have_plan_held()

    def _have_plan_held(self) -> None:
        """Ask for a Resize whenever the engine holds another plan: at first, after a change, after its restart."""
        wanted = plan_hash(self._plan)
        if self.engine != "Connected" or self.report is None or self.report.plan_hash == wanted:
            return
        if self._resize_asked_for == wanted:
            return
        goal = self._plan.soft_entry_bytes
        used = self.used.bytes
        asked = max(0, used - goal) if isinstance(used, int) and self._plan.mode is Mode.ENFORCE else 0
        cause = f"the engine holds another plan than {wanted[:12]}"
        self._submit(Order(ActionKind.RESIZE, self._plan, asked, goal, cause))
        self._resize_asked_for = wanted

    def _look_fully(self, now: float) -> None:
        if self.engine != "Connected":
            self.sample = Absent(f"the engine is not there: {self.engine}")
            self._see(now, SignalReading(Absent("the engine is not there"), "none"))
            return
        sample = self.link.sample(self._plan.signal, now)
        self.sample = sample
        try:
            self.report = self.link.client.report()
        except (EngineUnreachable, EngineRefused) as error:
            self.report = None
            log.warning("no report: %s", error)
        self._see(now, SignalReading(sample, "none") if isinstance(sample, Absent) else sample.used)
        self._tell_room()

    def _see(self, now: float, used: SignalReading) -> None:
        self.used = used
        self.tally.samples += 1
        if isinstance(used.bytes, Absent):
            self.tally.absent_readings["signal"] += 1
        self.history.record(now, used.bytes)
        if self.engine != "Connected":
            return
        signal = used.bytes if isinstance(used.bytes, int) else None
        observation = Observation(now, signal, self._unmanaged_bytes())
        self.ladder, decisions = step(self.ladder, observation, self._plan)
        for decision in decisions:
            self._hand_over(decision)

    def _unmanaged_bytes(self) -> int | None:
        used = self.used.bytes
        if not isinstance(used, int) or self.report is None:
            return None
        return max(0, used - self.report.managed_bytes)

    def _tell_room(self) -> None:
        unmanaged = self._unmanaged_bytes()
        if unmanaged is None or self._plan.mode is Mode.OBSERVE:
            return
        room = self._plan.soft_entry_bytes - self._plan.room_margin_bytes - unmanaged
        if self._room_told is not None and abs(room - self._room_told) <= ROOM_STEP_BYTES:
            return
        try:
            self.link.client.tell_room(Room(room_bytes=room))
            self._room_told = room
        except (EngineUnreachable, EngineRefused) as error:
            log.warning("the room was not told: %s", error)

    def _hand_over(self, decision: Decision) -> None:
        goal = self._plan.percent_bytes(self._release_percent(self._plan, decision))
        order = Order(decision.kind, self._plan, decision.bytes_to_free, goal, decision.cause, decision)
        if not self._submit(order):
            self._results.put((decision, ActionStatus.FAILED, False))

    @staticmethod
    def _release_percent(plan: EffectivePlan, decision: Decision) -> int:
        if decision.kind is ActionKind.COLLECT:
            return plan.thresholds.collect.percent
        return plan.thresholds.soft.release_percent

    def _submit(self, order: Order) -> bool:
        try:
            self.actions.submit(order)
        except QueueFull as error:
            log.warning("%s: %s", order.kind, error)
            return False
        return True

    def _action_ended(self, order: Order, record: ActionRecord) -> None:
        """In the thread of the actions."""
        self.tally.count_action(record)
        log.info("%s %s: asked %d, freed %s, %s", record.kind, record.status, record.asked_bytes, record.freed_bytes,
                 record.error or order.cause)  # fmt: skip
        if order.decision is not None:
            self._results.put((order.decision, record.status, bool(record.exhausted)))
        if order.kind is ActionKind.RESIZE and record.status is ActionStatus.FAILED:
            self._resize_asked_for = None
        self._full_at = -float("inf")
        self.wake()

    def _take_results(self, now: float) -> None:
        while not self._results.empty():
            decision, status, exhausted = self._results.get()
            self.ladder = finished(self.ladder, decision, status, exhausted, now)
