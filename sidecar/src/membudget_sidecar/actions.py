"""Carries actions out, one at a time, and verifies each with the kernel (R-S04, R-S05).

Covers: the bounded queue, readings before and after, the record of every action. Does not decide (`ladder`) nor
judge (`verification`). One thread of its own: sampling goes on while an action runs.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from membudget_contract.control_api import Freed, FreeRequest, Means, budgets_of
from membudget_contract.plan import EffectivePlan, plan_hash
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.control_client import ACTION_SECONDS, ControlClient
from membudget_sidecar.engine_link import EngineLink
from membudget_sidecar.errors import EngineRefused, EngineUnreachable, QueueFull
from membudget_sidecar.ladder import Decision
from membudget_sidecar.reading import Absent
from membudget_sidecar.settings import SidecarSettings
from membudget_sidecar.verification import judge

WAITING: Final = 64
KEPT_RECORDS: Final = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """One action to carry out. `goal_bytes` is a signal under which it is done, however little it freed."""

    kind: ActionKind
    plan: EffectivePlan
    asked_bytes: int
    goal_bytes: int
    cause: str
    decision: Decision | None = None


class ActionRunner:
    """A queue and the thread that works it off. `ended` is called in that thread with each order and its record."""

    def __init__(
        self,
        settings: SidecarSettings,
        link: EngineLink,
        *,
        wall: Callable[[], float],
        ended: Callable[[Order, ActionRecord], None],
    ) -> None:
        self._client = ControlClient(settings.control_socket, ACTION_SECONDS)
        self._link = link
        self._wall = wall
        self._ended = ended
        self._ids = itertools.count(1)
        self._queue: queue.Queue[tuple[Order, int] | None] = queue.Queue(WAITING)
        self._records: dict[int, ActionRecord] = {}
        self._order: deque[int] = deque()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="actions", daemon=True)

    def start(self) -> None:
        """Begin to carry out."""
        self._thread.start()

    def stop(self) -> None:
        """End after the action in work."""
        self._queue.put(None)
        self._thread.join(ACTION_SECONDS)
        self._client.close()

    def submit(self, order: Order) -> ActionRecord:
        """Queue one action; raises QueueFull."""
        record = ActionRecord(
            id=next(self._ids),
            kind=order.kind,
            cause=order.cause,
            status=ActionStatus.QUEUED,
            plan_hash=plan_hash(order.plan),
            asked_bytes=order.asked_bytes,
            queued_at=self._wall(),
        )
        try:
            self._queue.put_nowait((order, record.id))
        except queue.Full:
            raise QueueFull(f"{WAITING} actions wait already; try again when some are done") from None
        self._remember(record)
        return record

    def records(self) -> Sequence[ActionRecord]:
        """The last actions, oldest first."""
        with self._lock:
            return [self._records[number] for number in self._order]

    def record(self, number: int) -> ActionRecord | None:
        """One action by its id, as long as it is remembered."""
        with self._lock:
            return self._records.get(number)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            order, number = item
            record = self.record(number)
            if record is None:
                continue
            try:
                record = self._carry_out(order, msgspec.structs.replace(record, started_at=self._wall()))
            except Exception as error:  # a defect must not end the thread that gives memory back
                log.exception("action %d failed", number)
                record = msgspec.structs.replace(record, status=ActionStatus.FAILED, error=repr(error))
            self._remember(record)
            self._ended(order, record)

    def _carry_out(self, order: Order, record: ActionRecord) -> ActionRecord:
        if order.plan.mode is Mode.OBSERVE and order.kind is not ActionKind.RESIZE:
            return msgspec.structs.replace(record, status=ActionStatus.OBSERVED, finished_at=self._wall())
        record = msgspec.structs.replace(record, status=ActionStatus.RUNNING)
        self._remember(record)
        signal = order.plan.signal
        before = self._link.verified_reading(signal)
        try:
            freed = self._ask(order)
        except (EngineUnreachable, EngineRefused) as error:
            return msgspec.structs.replace(
                record, status=ActionStatus.FAILED, error=str(error), finished_at=self._wall()
            )
        after = self._link.verified_reading(signal)
        before_bytes = None if isinstance(before.bytes, Absent) else before.bytes
        after_bytes = None if isinstance(after.bytes, Absent) else after.bytes
        return msgspec.structs.replace(
            record,
            status=judge(order.asked_bytes, before_bytes, after_bytes, order.goal_bytes),
            signal_before_bytes=before_bytes,
            signal_after_bytes=after_bytes,
            signal_source=after.source,
            owned_before_bytes=freed.owned_before_bytes,
            owned_after_bytes=freed.owned_after_bytes,
            entries=freed.entries,
            exhausted=freed.exhausted,
            collections=freed.collections,
            error=freed.problem,
            finished_at=self._wall(),
        )

    def _ask(self, order: Order) -> Freed:
        if order.kind is ActionKind.RESIZE:
            return self._client.apply(budgets_of(order.plan))
        return self._client.free(FreeRequest(means=Means(order.kind.value), target_bytes=order.asked_bytes))

    def _remember(self, record: ActionRecord) -> None:
        with self._lock:
            if record.id not in self._records:
                self._order.append(record.id)
                if len(self._order) > KEPT_RECORDS:
                    del self._records[self._order.popleft()]
            self._records[record.id] = record
