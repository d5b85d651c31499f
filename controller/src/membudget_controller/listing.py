"""Full lists: the truth that events only run ahead of.

Covers: when a list is due, what a failed one means, and whether the kind itself is ending. Does not hold what was
listed (`observed`). Called from the loop's thread.

The kind is asked for after the list: one that is not ending then was not ending before, so a policy missing from the
list was deleted by somebody and not swept away with the kind. A controller that may not see the definition, as one with
rights in single namespaces only, believes that a policy is gone when the same policies are missing for some seconds in
lists that succeed: a kind that ends sweeps away more of them meanwhile, and is then not served at all.

For a kind that comes, or comes back, the watch begins anew: that of the one before has ended, and kopf looks for kinds
once when a definition changes, which may be before the API server tells of it.
"""

from __future__ import annotations

import logging
from typing import Final

from membudget_controller.cluster import Cluster, Definition
from membudget_controller.errors import ApiFailed, ApiNotFound
from membudget_controller.failpoints import Failpoint, passed
from membudget_controller.observed import Observed

RETRY_SECONDS: Final = 2.0
LEAST_PAUSE_SECONDS: Final = 1.0
"""Between two lists, however many deletions ask for one."""
VERSION_SECONDS: Final = 10.0
"""Between two looks whether the store was put back to an earlier day: a watch that waits for the version it had seen
before is silent then, for as long as it takes the store to count so far again."""

BEHIND_LIST_SECONDS: Final = 30.0
"""Between two lists while a watch owes what the last one showed: it may be dead, and lists are all there is then."""

CONFIRM_SECONDS: Final = 10.0
"""For so long the same policies are missing before they count as deleted, where the kind cannot be asked for."""
BLIND_LIST_SECONDS: Final = 30.0
"""Between two lists there: that the kind has come is not seen in any other way."""

SCHEMA_SECONDS: Final = 10.0
"""After a change of the definition the API server reads policies by the former schema for a moment more, and leaves out
fields that this one lacks, under the same versions: what was read then is read again."""

_NOT_SERVED: Final = "not served"

log = logging.getLogger(__name__)


class Listing:
    """Two lists together, policies and pods."""

    def __init__(self, cluster: Cluster, observed: Observed, every_seconds: float) -> None:
        self._cluster = cluster
        self._observed = observed
        self._seconds = self._every_seconds = every_seconds
        self._began_at = -float("inf")
        self.due_at = -float("inf")
        self.version_at = -float("inf")
        """When the store is asked next what it counts to."""
        self.failed = False
        self._awaited_until = -float("inf")
        self._retry_after = 0.0
        """For so long the API server asked to be left alone at the last attempt."""
        self._served: str | None = None
        """The uid of the definition at the last list; None before the first."""
        self._generation: int | None = None
        """Of the definition at the last list; None before the first, or where it may not be seen."""
        self._settled_at = -float("inf")
        """When policies are read by the definition's own schema for certain."""
        self._missing: tuple[frozenset[str], float] = frozenset(), 0.0
        """Policies that a list lacked first at that time."""

    def list_if_due(self, now: float) -> bool:
        """List when it is time or asked for; True when both lists succeeded."""
        if self._observed.take_list_asked():
            self.due_at = min(self.due_at, max(now, self._began_at + LEAST_PAUSE_SECONDS))
            self._awaited_until = self.due_at
        if self._observed.behind_seconds:
            self.due_at = min(self.due_at, self._began_at + BEHIND_LIST_SECONDS)
        if now < self.due_at and not self._is_restored(now):
            return False
        self._began_at = now
        self._retry_after = 0.0
        policies = self._list_policies(now)
        passed(Failpoint.INDEX_HALF_BUILT)
        pods = self._list_pods()
        passed(Failpoint.AFTER_LIST)
        self.failed = not (policies and pods)
        self.due_at = now + (max(RETRY_SECONDS, self._retry_after) if self.failed else self._every_seconds)
        if now < self._settled_at:
            self.due_at = min(self.due_at, self._settled_at)
        self.version_at = now + VERSION_SECONDS
        return not self.failed

    def is_awaited(self, now: float) -> bool:
        """A list was asked for a moment ago and may not begin yet: until it has, pods may be known that are gone."""
        return now < self._awaited_until

    def _is_restored(self, now: float) -> bool:
        if now < self.version_at:
            return False
        self.version_at = now + VERSION_SECONDS
        listed = self._observed.listed_version
        try:
            return listed is not None and self._cluster.latest_version() < listed
        except ApiFailed:
            return False  # whoever lists next says so

    def _list_policies(self, now: float) -> bool:
        try:
            listed = self._cluster.list_policies()
            definition = self._cluster.read_definition()
        except ApiNotFound:
            definition, listed = None, None
        except ApiFailed as error:
            self._fail("policies are not listed: %s", error)
            return False
        if listed is None or (definition is not None and definition.ending):
            self._served = _NOT_SERVED
            self._say("the kind MemoryPolicy is not served: policies are unknown, nothing is pushed%s", "")
            self._observed.doubt_policies()
            return False
        self._follow(definition, now)
        missing = self._observed.policies_since_list().difference(policy.uid for policy in listed.items)
        if definition is None and not self._is_confirmed(missing, now):
            self._observed.doubt_policies()
            return False
        self._observed.replace_policies(listed.items, listed.resource_version)
        return True

    def _follow(self, definition: Definition | None, now: float) -> None:
        """Of a kind that is served: whether it is another one, and how soon policies are listed again."""
        served, generation = ("", None) if definition is None else (definition.uid, definition.generation)
        if self._served not in {None, served}:
            self._observed.begin_watch_anew()
        if self._generation not in {None, generation}:
            self._settled_at = now + SCHEMA_SECONDS
        self._served, self._generation = served, generation
        self._every_seconds = min(self._seconds, BLIND_LIST_SECONDS) if definition is None else self._seconds

    def _is_confirmed(self, missing: frozenset[str], now: float) -> bool:
        if missing != self._missing[0]:
            self._missing = missing, now
        return not missing or now >= self._missing[1] + CONFIRM_SECONDS

    def _list_pods(self) -> bool:
        try:
            listed = self._cluster.list_pods()
        except ApiFailed as error:
            self._fail("pods are not listed: %s", error)
            return False
        self._observed.replace_pods(listed.items, listed.resource_version)
        return True

    def _fail(self, message: str, error: ApiFailed) -> None:
        self._retry_after = max(self._retry_after, error.retry_after)
        self._say(message, error)

    def _say(self, message: str, detail: object) -> None:
        """Once, not at every retry."""
        if not self.failed:
            log.warning(message, detail)
