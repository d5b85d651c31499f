"""Writes the status of policies where it differs, and tells of transitions in events (R-P10).

Covers: at most one write a second for each policy and what `write_budget` leaves for all, always at the resourceVersion
that was looked at, and what follows a conflict; events, which wait until no status does. Does not decide what the
status is (`conditions`).

Two threads: the loop says what is wanted as often as it looks, one of its own writes, so that an API server that is
slow, or 500 statuses at 20 a second, hold up no order. A policy that moved on since the loop looked is left to its next
look, for which the loop is woken. After a conflict the newer object is fetched and shown to `observed`, which wakes it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from membudget_contract.policy_status import ConditionStatus, PolicyStatus
from membudget_controller.cluster import Cluster, Transition
from membudget_controller.errors import ApiConflict, ApiFailed, ApiNotFound
from membudget_controller.failpoints import Failpoint, passed
from membudget_controller.objects import ObservedPolicy
from membudget_controller.observed import Observed
from membudget_controller.write_budget import BudgetSpent, WriteBudget

WRITE_PAUSE_SECONDS: Final = 1.0
CONFLICT_PAUSE_SECONDS: Final = 0.05
FAILURE_PAUSE_SECONDS: Final = 5.0
MOST_EVENTS: Final = 1000
"""That wait; of more the oldest are lost, as those of other components are."""

log = logging.getLogger(__name__)


class StatusWriter:
    """Remembers what is wanted, and for each policy when it may be written again."""

    def __init__(self, cluster: Cluster, observed: Observed, budget: WriteBudget, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._observed = observed
        self._budget = budget
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[ObservedPolicy, PolicyStatus]] = {}
        self._write_at: dict[str, float] = {}
        self._events: deque[tuple[ObservedPolicy, Transition]] = deque(maxlen=MOST_EVENTS)
        self._wake = threading.Event()
        self._stopped = False

    def want(self, statuses: Iterable[tuple[ObservedPolicy, PolicyStatus]]) -> None:
        """What the statuses of all policies should be, from now on; for the loop's thread."""
        known = {policy.uid: (policy, status) for policy, status in statuses}
        with self._lock:
            self._wanted = {uid: (policy, status) for uid, (policy, status) in known.items() if status != policy.status}
            self._write_at = {uid: at for uid, at in self._write_at.items() if uid in known}
        self._wake.set()

    def run(self) -> None:
        """Write until `stop`; for a thread of its own."""
        while not self._stopped:
            self._wake.clear()
            again = self._guarded_step()
            if again is None or again > self._clock():
                self._wake.wait(None if again is None else again - self._clock())

    def stop(self) -> None:
        """End after the write in work."""
        self._stopped = True
        self._wake.set()

    def step(self) -> float | None:
        """Write one status, else tell of one transition; when to come back, None where nothing is wanted."""
        now = self._clock()
        first = self._first()
        if first is not None and not self._observed.is_current(first[0]):
            self._forget(first)
            self._observed.wake.set()
            return now
        write_at = None if first is None else self._write_at.get(first[0].uid, now)
        if (write_at is None or write_at > now) and not self._events:
            return write_at
        try:
            with self._budget.one():
                if first is not None and write_at is not None and write_at <= now:
                    self._write(*first)
                else:
                    self._tell(*self._events.popleft())
        except BudgetSpent:
            return self._budget.next_at
        return now

    def _guarded_step(self) -> float | None:
        try:
            return self.step()
        except Exception:  # a defect in one write must not end all others
            log.exception("a status was not written")
        return self._clock() + FAILURE_PAUSE_SECONDS

    def _first(self) -> tuple[ObservedPolicy, PolicyStatus] | None:
        """Whose was written least lately: where writes are scarce, none waits for ever."""
        with self._lock:
            uid = min(self._wanted, key=lambda uid: self._write_at.get(uid, 0.0), default=None)
            return None if uid is None else self._wanted[uid]

    def _forget(self, written: tuple[ObservedPolicy, PolicyStatus]) -> None:
        """Unless another was wanted meanwhile."""
        with self._lock:
            if self._wanted.get(written[0].uid) is written:
                del self._wanted[written[0].uid]

    def _write(self, policy: ObservedPolicy, status: PolicyStatus) -> None:
        pause = self._written(policy, status)
        with self._lock:
            self._write_at[policy.uid] = self._clock() + pause

    def _written(self, policy: ObservedPolicy, status: PolicyStatus) -> float:
        """How long this policy is not written again."""
        passed(Failpoint.BEFORE_STATUS_PATCH)
        try:
            after = self._cluster.patch_status(policy, status)
        except ApiConflict:
            return self._fetch_newer(policy)
        except ApiNotFound:
            return FAILURE_PAUSE_SECONDS  # deleted, or the kind is: the watch or the next list says so
        except ApiFailed as error:
            log.warning("the status of %s/%s is not written: %s", policy.namespace, policy.name, error)
            return max(FAILURE_PAUSE_SECONDS, error.retry_after)
        passed(Failpoint.AFTER_STATUS_PATCH)
        self._observed.see_written(after)
        self._events.extend((after, transition) for transition in transitions(policy.status, status))
        return WRITE_PAUSE_SECONDS

    def _fetch_newer(self, policy: ObservedPolicy) -> float:
        try:
            newer = self._cluster.read_policy(policy.namespace, policy.name)
        except ApiFailed as error:
            log.info("%s/%s moved on and is not to be read: %s", policy.namespace, policy.name, error)
            return FAILURE_PAUSE_SECONDS
        self._observed.see_policy(newer)
        return CONFLICT_PAUSE_SECONDS

    def _tell(self, policy: ObservedPolicy, transition: Transition) -> None:
        try:
            self._cluster.create_event(policy, transition)
        except ApiFailed as error:
            log.info("an event on %s/%s is lost: %s", policy.namespace, policy.name, error)


def transitions(before: PolicyStatus, after: PolicyStatus) -> Iterator[Transition]:
    """What people should see: every condition whose answer or reason moved, in the order of the conditions."""
    known = {condition.type: (condition.status, condition.reason) for condition in before.conditions}
    for condition in after.conditions:
        if known.get(condition.type) != (condition.status, condition.reason):
            warning = condition.status is ConditionStatus.FALSE
            yield Transition(condition.reason.value, f"{condition.type.value}: {condition.message}", warning)
