"""Writes the status of policies where it differs, and tells of transitions in events (R-P10).

Covers: at most one write a second for each policy and what `write_budget` leaves for all, always at the resourceVersion
that was looked at, and what follows a conflict; events, which wait until no status does. Does not decide what the
status is (`conditions`). One thread.

After a conflict the newer object is fetched and shown to `observed`; the next look of the loop decides from that.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from membudget_contract.policy_status import ConditionStatus, PolicyStatus
from membudget_controller.cluster import Cluster, Transition
from membudget_controller.errors import ApiConflict, ApiFailed, ApiNotFound
from membudget_controller.failpoints import Failpoint, passed
from membudget_controller.objects import ObservedPolicy
from membudget_controller.observed import Observed
from membudget_controller.write_budget import WriteBudget

WRITE_PAUSE_SECONDS: Final = 1.0
CONFLICT_PAUSE_SECONDS: Final = 0.05
FAILURE_PAUSE_SECONDS: Final = 5.0
MOST_EVENTS: Final = 1000
"""That wait; of more the oldest are lost, as those of other components are."""

log = logging.getLogger(__name__)


class StatusWriter:
    """Remembers for each policy when it may be written again."""

    def __init__(self, cluster: Cluster, observed: Observed, budget: WriteBudget) -> None:
        self._cluster = cluster
        self._observed = observed
        self._budget = budget
        self._write_at: dict[str, float] = {}
        self._events: deque[tuple[ObservedPolicy, Transition]] = deque(maxlen=MOST_EVENTS)

    def write(self, policy: ObservedPolicy, status: PolicyStatus, now: float) -> float | None:
        """Bring the policy's status to this; when to come back, None where it is so already."""
        if status == policy.status:
            return None
        write_at = self._write_at.get(policy.uid, now)
        if now < write_at:
            return write_at
        if not self._budget.spend():
            return self._budget.next_at
        pause = self._written(policy, status)
        if pause is not None:
            self._write_at[policy.uid] = now + pause
        return self._write_at.get(policy.uid)

    def in_turn(self, policies: Iterable[ObservedPolicy]) -> list[ObservedPolicy]:
        """Those that were written least lately first: where writes are scarce, none waits for ever."""
        return sorted(policies, key=lambda policy: self._write_at.get(policy.uid, 0.0))

    def tell(self) -> float | None:
        """Send events that wait, as many as may be; when to come back for the others, None where none waits."""
        while self._events:
            if not self._budget.spend():
                return self._budget.next_at
            policy, transition = self._events.popleft()
            try:
                self._cluster.create_event(policy, transition)
            except ApiFailed as error:
                log.info("an event on %s/%s is lost: %s", policy.namespace, policy.name, error)
        return None

    def forget_others(self, uids: Iterable[str]) -> None:
        """Keep pauses of these policies only."""
        kept = set(uids)
        self._write_at = {uid: at for uid, at in self._write_at.items() if uid in kept}

    def _written(self, policy: ObservedPolicy, status: PolicyStatus) -> float | None:
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
        self._observed.see_policy(after)
        self._events.extend((after, transition) for transition in transitions(policy.status, status))
        return WRITE_PAUSE_SECONDS

    def _fetch_newer(self, policy: ObservedPolicy) -> float | None:
        try:
            newer = self._cluster.read_policy(policy.namespace, policy.name)
        except ApiFailed as error:
            log.info("%s/%s moved on and is not to be read: %s", policy.namespace, policy.name, error)
            return FAILURE_PAUSE_SECONDS
        self._observed.see_policy(newer)
        return CONFLICT_PAUSE_SECONDS


def transitions(before: PolicyStatus, after: PolicyStatus) -> Iterator[Transition]:
    """What people should see: every condition whose answer or reason moved, in the order of the conditions."""
    known = {condition.type: (condition.status, condition.reason) for condition in before.conditions}
    for condition in after.conditions:
        if known.get(condition.type) != (condition.status, condition.reason):
            warning = condition.status is ConditionStatus.FALSE
            yield Transition(condition.reason.value, f"{condition.type.value}: {condition.message}", warning)
