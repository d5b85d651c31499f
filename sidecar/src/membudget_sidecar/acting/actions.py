"""The queue of actions, one carried out at a time, and the record of every one (R-S04, R-S05).

Covers: who goes first, what a record keeps of the look that caused it, failures. Does not decide (`ladder`), carry out
and verify (`execution`, `upkeep`) nor judge (`verification`). Threads of its own: sampling goes on while an action
runs, also one of a frozen engine.

Invariant: in Observe the engine is asked to give nothing back, and to hold no budgets that are live, whenever an action
was queued.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from membudget_contract.control_api import Report
from membudget_contract.plan import plan_hash
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.acting.aftermath import Aftermath
from membudget_sidecar.acting.control_client import ACTION_SECONDS, QUESTION_SECONDS, ControlClient
from membudget_sidecar.acting.engine_link import EngineLink
from membudget_sidecar.acting.execution import KEPT_ERROR_CHARACTERS, Execution, Followed, Order, failed
from membudget_sidecar.acting.upkeep import UPKEEP, UPKEEP_SECONDS, Upkeep
from membudget_sidecar.errors import QueueFull
from membudget_sidecar.settings import SidecarSettings

WAITING: Final = 64
"""Of actions by hand; the sidecar's own, at most one Resize and one of the ladder, always find a place before them."""
KEPT_RECORDS: Final = 1000
STOP_SECONDS: Final = 2.0
"""An action still in work after that is left to the engine; nobody waits for its verification any more."""

log = logging.getLogger(__name__)


def rank(order: Order) -> int:
    """Who goes first: what the plan asks for, then what the ladder needs, then what a person asked for."""
    if order.kind is ActionKind.RESIZE or order.by_plan:
        return 0
    return 1 if order.decision is not None else _BY_HAND


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """In the queue: by rank, then by age."""

    rank: int
    number: int
    work: tuple[Order, ActionRecord] | None = field(compare=False)


_Queue = queue.PriorityQueue[_Place] | queue.SimpleQueue[_Place]

_BY_HAND: Final = 2
_STOP: Final = _Place(-1, 0, None)


class ActionRunner:
    """A queue and the thread that works it off, and another pair for what frees nothing and may take long.

    `ended` is called with each order and its record when it ended, and once more, from another thread and with the
    status Harmful, when harm showed seconds later. `mode` is that of the plan in force, asked when an action begins:
    much may have changed since it was queued. `clock` is the one that looks are timed by.
    """

    def __init__(
        self,
        settings: SidecarSettings,
        link: EngineLink,
        *,
        wall: Callable[[], float],
        ended: Callable[[Order, ActionRecord], None],
        mode: Callable[[], Mode],
        seconds: float = ACTION_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = ControlClient(settings.control_socket, seconds)
        self._asking = ControlClient(settings.control_socket, QUESTION_SECONDS)
        self._wall = wall
        self._clock = clock
        self._ended = ended
        self._mode = mode
        self._ids = itertools.count(1)
        self._queue: queue.PriorityQueue[_Place] = queue.PriorityQueue()
        self._by_hand = 0
        self._records: dict[int, ActionRecord] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._upkeep_queue: queue.SimpleQueue[_Place] = queue.SimpleQueue()
        self._upkeep_client = ControlClient(settings.control_socket, UPKEEP_SECONDS)
        self._aftermath: Aftermath[Followed] = Aftermath(self._report, self._harmed, clock=time.monotonic)
        self._execution = Execution(self._client, link, self._aftermath, self._stopped)
        self._upkeep = Upkeep(self._upkeep_client)
        self._threads = (
            threading.Thread(target=self._work, args=(self._queue, self._client), name="actions", daemon=True),
            threading.Thread(
                target=self._work, args=(self._upkeep_queue, self._upkeep_client), name="upkeep", daemon=True
            ),
        )

    def start(self) -> None:
        """Begin to carry out."""
        for thread in self._threads:
            thread.start()
        self._aftermath.start()

    def stop(self) -> None:
        """End after the action in work; what waits is not begun."""
        self._stopped.set()
        self._queue.put(_STOP)  # wakes a thread that has nothing to do
        self._upkeep_queue.put(_STOP)
        self._threads[0].join(STOP_SECONDS)
        self._aftermath.stop()

    def submit(self, order: Order) -> ActionRecord:
        """Queue one action; raises QueueFull when it is one by hand and too many of those wait."""
        record = self._new_record(order)
        with self._lock:
            if rank(order) == _BY_HAND:
                if self._by_hand >= WAITING:
                    raise QueueFull(f"{WAITING} actions wait already; try again when some are done")
                self._by_hand += 1
            self._records[record.id] = record
            if len(self._records) > KEPT_RECORDS:
                del self._records[next(iter(self._records))]
            waiting = self._upkeep_queue if order.kind in UPKEEP else self._queue
            waiting.put(_Place(rank(order), record.id, (order, record)))
        return record

    def records(self) -> Sequence[ActionRecord]:
        """The last actions, oldest first."""
        with self._lock:
            return list(self._records.values())

    def record(self, number: int) -> ActionRecord | None:
        """One action by its id, as long as it is remembered."""
        with self._lock:
            return self._records.get(number)

    def _new_record(self, order: Order) -> ActionRecord:
        now = self._wall()
        record = ActionRecord(
            id=next(self._ids),
            kind=order.kind,
            cause=order.cause,
            status=ActionStatus.QUEUED,
            plan_hash=plan_hash(order.plan),
            asked_bytes=order.asked_bytes,
            queued_at=now,
        )
        if order.decision is None:
            return record
        record = msgspec.structs.replace(record, level=order.decision.level)
        seen = order.decision.observation
        if seen is None:
            return record
        return msgspec.structs.replace(
            record,
            seen_at=now - (self._clock() - seen.now),
            seen_signal_bytes=seen.signal_bytes,
            seen_signal_source=seen.signal_source,
            seen_limit_bytes=seen.limit_bytes,
            seen_unmanaged_bytes=seen.unmanaged_bytes,
            seen_seconds_to_limit=seen.seconds_to_limit,
        )

    def _work(self, waiting: _Queue, client: ControlClient) -> None:
        while (work := waiting.get().work) is not None and not self._stopped.is_set():
            order, record = work
            with self._lock:
                self._by_hand -= rank(order) == _BY_HAND
            started = time.monotonic()
            record = msgspec.structs.replace(record, started_at=self._wall(), status=ActionStatus.RUNNING)
            self._remember(record)
            record = msgspec.structs.replace(
                self._carried_out(order, record),
                finished_at=self._wall(),
                duration_seconds=time.monotonic() - started,
            )
            self._remember(record)
            self._ended(order, record)
        client.close()

    def _carried_out(self, order: Order, record: ActionRecord) -> ActionRecord:
        if order.kind in UPKEEP and not (order.by_plan and self._mode() is Mode.OBSERVE):
            return self._upkeep.carry_out(order, record)
        # Budgets of Observe are not live, and the runtime must be told so; those of a plan that enforced are no more.
        harmless = order.kind is ActionKind.RESIZE and order.plan.mode is Mode.OBSERVE
        if self._mode() is Mode.OBSERVE and not harmless:
            return msgspec.structs.replace(record, status=ActionStatus.OBSERVED)
        try:
            return self._execution.carry_out(order, record)
        except Exception as error:  # a defect must not end the thread that gives memory back
            log.exception("action %d failed", record.id)
            return failed(record, repr(error))

    def _report(self) -> Report:
        """In the aftermath's thread, over a connection of its own that is not kept."""
        try:
            return self._asking.report()
        finally:
            self._asking.close()

    def _harmed(self, followed: Followed, harm: str) -> None:
        order, record = followed
        record = msgspec.structs.replace(
            self.record(record.id) or record, status=ActionStatus.HARMFUL, harm=harm[:KEPT_ERROR_CHARACTERS]
        )
        self._remember(record)
        self._ended(order, record)

    def _remember(self, record: ActionRecord) -> None:
        with self._lock:
            if record.id in self._records:
                self._records[record.id] = record
