"""Carries actions out, one at a time, and verifies each with the kernel (R-S04, R-S05).

Covers: the queue and who goes first in it, readings before and after, the record of every action. Does not decide
(`ladder`) nor judge (`verification`). One thread of its own: sampling goes on while an action runs, also one of a
frozen engine.

Invariant: in Observe nothing is asked of the engine but to hold budgets that are not live, whenever it was queued.
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

from membudget_contract.control_api import Freed, FreeRequest, Means, budgets_of
from membudget_contract.plan import EffectivePlan, plan_hash
from membudget_contract.policy import Mode
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.control_client import ACTION_SECONDS, ControlClient
from membudget_sidecar.engine_link import EngineLink
from membudget_sidecar.engine_process import EngineProcess
from membudget_sidecar.errors import EngineRefused, EngineUnreachable, QueueFull
from membudget_sidecar.ladder import Decision
from membudget_sidecar.reading import Absent, SignalReading
from membudget_sidecar.settings import SidecarSettings
from membudget_sidecar.verification import judge

WAITING: Final = 64
"""Of actions by hand; the sidecar's own, at most one Resize and one of the ladder, always find a place before them."""
KEPT_RECORDS: Final = 1000
KEPT_COLLECTIONS: Final = 20
"""The largest of each action: names come from the engine, and a thousand records must stay small."""
KEPT_ERROR_CHARACTERS: Final = 300
LASTING_SECONDS: Final = 1.0
"""How long a Cleanup must have been effective: pages that are in use are back within a tenth of that."""
LASTING_LOOK_SECONDS: Final = 0.1
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

    @property
    def rank(self) -> int:
        """Who goes first: budgets, then what the ladder needs, then what a person asked for."""
        if self.kind is ActionKind.RESIZE:
            return 0
        return 1 if self.decision is not None else _BY_HAND


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """In the queue: by rank, then by age."""

    rank: int
    number: int
    work: tuple[Order, ActionRecord] | None = field(compare=False)


_BY_HAND: Final = 2
_STOP: Final = _Place(-1, 0, None)


class ActionRunner:
    """A queue and the thread that works it off. `ended` is called in that thread with each order and its record.

    `mode` is that of the plan in force, asked when an action begins: much may have changed since it was queued.
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
    ) -> None:
        self._client = ControlClient(settings.control_socket, seconds)
        self._link = link
        self._wall = wall
        self._ended = ended
        self._mode = mode
        self._ids = itertools.count(1)
        self._queue: queue.PriorityQueue[_Place] = queue.PriorityQueue()
        self._by_hand = 0
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
        self._queue.put(_STOP)  # wakes a thread that has nothing to do
        self._thread.join(STOP_SECONDS)

    def submit(self, order: Order) -> ActionRecord:
        """Queue one action; raises QueueFull when it is one by hand and too many of those wait."""
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
            if order.rank == _BY_HAND:
                if self._by_hand >= WAITING:
                    raise QueueFull(f"{WAITING} actions wait already; try again when some are done")
                self._by_hand += 1
            self._records[record.id] = record
            if len(self._records) > KEPT_RECORDS:
                del self._records[next(iter(self._records))]
            self._queue.put(_Place(order.rank, record.id, (order, record)))
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
        while (work := self._queue.get().work) is not None and not self._stopped.is_set():
            order, record = work
            with self._lock:
                self._by_hand -= order.rank == _BY_HAND
            record = msgspec.structs.replace(record, started_at=self._wall(), status=ActionStatus.RUNNING)
            self._remember(record)
            record = msgspec.structs.replace(self._carried_out(order, record), finished_at=self._wall())
            self._remember(record)
            self._ended(order, record)
        self._client.close()

    def _carried_out(self, order: Order, record: ActionRecord) -> ActionRecord:
        # Budgets of Observe are not live, and the runtime must be told so; those of a plan that enforced are no more.
        harmless = order.kind is ActionKind.RESIZE and order.plan.mode is Mode.OBSERVE
        if self._mode() is Mode.OBSERVE and not harmless:
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
        status = judge(order.asked_bytes, before.bytes, after.bytes, order.goal_bytes)
        if order.kind is ActionKind.CLEANUP and status is ActionStatus.EFFECTIVE:
            after = self._reading_of_what_lasts(process, order, before)
            status = judge(order.asked_bytes, before.bytes, after.bytes, order.goal_bytes)
        largest = sorted(freed.collections.items(), key=lambda item: item[1], reverse=True)[:KEPT_COLLECTIONS]
        return msgspec.structs.replace(
            record,
            status=status,
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

    def _reading_of_what_lasts(self, process: EngineProcess, order: Order, before: SignalReading) -> SignalReading:
        """The signal a second later, or as soon as it is back: mapped pages that queries touch return by themselves.

        Only a Cleanup may give back such pages and nothing else, so only it takes this time.
        """
        until = time.monotonic() + LASTING_SECONDS
        while time.monotonic() < until and not self._stopped.wait(LASTING_LOOK_SECONDS):
            now = process.signal_reading(order.plan.signal).bytes
            if judge(order.asked_bytes, before.bytes, now, order.goal_bytes) is not ActionStatus.EFFECTIVE:
                break
        return process.verified_reading(order.plan.signal)

    def _ask(self, order: Order) -> Freed:
        if order.kind is ActionKind.RESIZE:
            return self._client.apply(budgets_of(order.plan))
        return self._client.free(FreeRequest(means=Means(order.kind.value), target_bytes=order.asked_bytes))

    def _remember(self, record: ActionRecord) -> None:
        with self._lock:
            if record.id in self._records:
                self._records[record.id] = record
