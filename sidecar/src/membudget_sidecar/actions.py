"""Carries actions out, one at a time, and verifies each with the kernel (R-S04, R-S05).

Covers: the bounded queue, readings before and after, the record of every action. Does not decide (`ladder`) nor
judge (`verification`). One thread of its own: sampling goes on while an action runs, also one of a frozen engine.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
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
KEPT_COLLECTIONS: Final = 20
"""The largest of each action: names come from the engine, and a thousand records must stay small."""
KEPT_ERROR_CHARACTERS: Final = 300
STOP_SECONDS: Final = 2.0
"""An action still in work after that is left to the engine; nobody waits for its verification any more."""

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
        seconds: float = ACTION_SECONDS,
    ) -> None:
        self._client = ControlClient(settings.control_socket, seconds)
        self._link = link
        self._wall = wall
        self._ended = ended
        self._ids = itertools.count(1)
        self._queue: queue.SimpleQueue[tuple[Order, ActionRecord] | None] = queue.SimpleQueue()
        self._records: dict[int, ActionRecord] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="actions", daemon=True)

    def start(self) -> None:
        """Begin to carry out."""
        self._thread.start()

    def stop(self) -> None:
        """End after the action in work; what waits is not begun."""
        self._stopped.set()
        self._queue.put(None)  # wakes a thread that has nothing to do
        self._thread.join(STOP_SECONDS)

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
        with self._lock:
            if self._queue.qsize() >= WAITING:
                raise QueueFull(f"{WAITING} actions wait already; try again when some are done")
            self._records[record.id] = record
            if len(self._records) > KEPT_RECORDS:
                del self._records[next(iter(self._records))]
            self._queue.put((order, record))
        return record

    def records(self) -> Sequence[ActionRecord]:
        """The last actions, oldest first."""
        with self._lock:
            return list(self._records.values())

    def record(self, number: int) -> ActionRecord | None:
        """One action by its id, as long as it is remembered."""
        with self._lock:
            return self._records.get(number)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None and not self._stopped.is_set():
            order, record = item
            record = msgspec.structs.replace(record, started_at=self._wall(), status=ActionStatus.RUNNING)
            self._remember(record)
            record = msgspec.structs.replace(self._carried_out(order, record), finished_at=self._wall())
            self._remember(record)
            self._ended(order, record)
        self._client.close()

    def _carried_out(self, order: Order, record: ActionRecord) -> ActionRecord:
        if order.plan.mode is Mode.OBSERVE and order.kind is not ActionKind.RESIZE:
            return msgspec.structs.replace(record, status=ActionStatus.OBSERVED)
        try:
            return self._verified(order, record)
        except (EngineUnreachable, EngineRefused) as error:
            problem = str(error)
        except Exception as error:  # a defect must not end the thread that gives memory back
            log.exception("action %d failed", record.id)
            problem = repr(error)
        return msgspec.structs.replace(record, status=ActionStatus.FAILED, error=problem[:KEPT_ERROR_CHARACTERS])

    def _verified(self, order: Order, record: ActionRecord) -> ActionRecord:
        """Ask the engine between two readings of the same process: one that restarted has freed nothing."""
        process, signal = self._link.process, order.plan.signal
        if process is None:
            raise EngineUnreachable("no engine was seen yet")
        before = process.verified_reading(signal)
        freed = self._ask(order)
        after = process.verified_reading(signal)
        largest = sorted(freed.collections.items(), key=lambda item: item[1], reverse=True)[:KEPT_COLLECTIONS]
        return msgspec.structs.replace(
            record,
            status=judge(order.asked_bytes, before.bytes, after.bytes, order.goal_bytes),
            signal_before_bytes=None if isinstance(before.bytes, Absent) else before.bytes,
            signal_after_bytes=None if isinstance(after.bytes, Absent) else after.bytes,
            signal_source=after.source,
            owned_before_bytes=freed.owned_before_bytes,
            owned_after_bytes=freed.owned_after_bytes,
            entries=freed.entries,
            exhausted=freed.exhausted,
            collections=dict(largest),
            error=freed.problem[:KEPT_ERROR_CHARACTERS] if freed.problem else None,
        )

    def _ask(self, order: Order) -> Freed:
        if order.kind is ActionKind.RESIZE:
            return self._client.apply(budgets_of(order.plan))
        return self._client.free(FreeRequest(means=Means(order.kind.value), target_bytes=order.asked_bytes))

    def _remember(self, record: ActionRecord) -> None:
        with self._lock:
            if record.id in self._records:
                self._records[record.id] = record
