"""Full lists: the truth that events only run ahead of.

Covers: when a list is due, what a failed one means, and whether the kind itself is ending. Does not hold what was
listed (`observed`). Called from the loop's thread.

The kind is asked for after the list: one that is not ending then was not ending before, so a policy missing from the
list was deleted by somebody and not swept away with the kind.
"""

from __future__ import annotations

import logging
from typing import Final

from membudget_controller.cluster import Cluster
from membudget_controller.errors import ApiFailed, ApiNotFound
from membudget_controller.observed import Observed

RETRY_SECONDS: Final = 2.0
LEAST_PAUSE_SECONDS: Final = 1.0
"""Between two lists, however many deletions ask for one."""

log = logging.getLogger(__name__)


class Listing:
    """Two lists together, policies and pods."""

    def __init__(self, cluster: Cluster, observed: Observed, every_seconds: float) -> None:
        self._cluster = cluster
        self._observed = observed
        self._every_seconds = every_seconds
        self._began_at = -float("inf")
        self.due_at = -float("inf")
        self.failed = False

    def list_if_due(self, now: float) -> bool:
        """List when it is time or asked for; True when both lists succeeded."""
        if self._observed.take_list_asked():
            self.due_at = min(self.due_at, max(now, self._began_at + LEAST_PAUSE_SECONDS))
        if now < self.due_at:
            return False
        self._began_at = now
        policies, pods = self._list_policies(), self._list_pods()
        self.failed = not (policies and pods)
        self.due_at = now + (RETRY_SECONDS if self.failed else self._every_seconds)
        return not self.failed

    def _list_policies(self) -> bool:
        try:
            listed = self._cluster.list_policies()
            ending = self._cluster.is_kind_ending()
        except ApiNotFound:
            ending, listed = True, None
        except ApiFailed as error:
            self._say("policies are not listed: %s", error)
            return False
        if ending or listed is None:
            self._say("the kind MemoryPolicy is not served: policies are unknown, nothing is pushed%s", "")
            self._observed.doubt_policies()
            return False
        self._observed.replace_policies(listed.items, listed.resource_version)
        return True

    def _list_pods(self) -> bool:
        try:
            listed = self._cluster.list_pods()
        except ApiFailed as error:
            self._say("pods are not listed: %s", error)
            return False
        self._observed.replace_pods(listed.items, listed.resource_version)
        return True

    def _say(self, message: str, detail: object) -> None:
        """Once, not at every retry."""
        if not self.failed:
            log.warning(message, detail)
