"""The public keys in each namespace where a sidecar needs them to believe an order.

Covers: the ConfigMap `membudget-keys` in every namespace that holds a policy or an opted-in pod: made where it is
missing, a key added where it lacks one of ours, the key retired last removed, all others left alone. Pods mount it.
Does not make keys (`keys`) nor say when one is retired (`key_rotation`).

A namespace is looked at when it appears, at each full list, when a key is added or retired, and when a pod there does
not know the key; written only where it differs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from membudget_controller.cluster import Cluster
from membudget_controller.errors import ApiFailed, ApiNotFound
from membudget_controller.failpoints import Failpoint, passed
from membudget_controller.keys import Authority
from membudget_controller.settings import KEY_CONFIG_MAP
from membudget_controller.write_budget import BudgetSpent, WriteBudget

MOST_KEYS: Final = 2
"""The present key and the one before or after it; sidecars read no more."""
RETRY_SECONDS: Final = 15.0
"""After a refusal, which somebody must take back."""
BUSY_SECONDS: Final = 2.0
"""After no answer, or one that blames the API server itself."""

log = logging.getLogger(__name__)


class KeyPublication:
    """Remembers where the keys are published; one thread."""

    def __init__(self, cluster: Cluster, authority: Authority, budget: WriteBudget) -> None:
        self._cluster = cluster
        self._budget = budget
        self._authority = authority
        self.published: set[str] = set()
        self.failed: dict[str, float] = {}
        """Namespaces where they could not be published, with when that is tried again."""

    def follow(self, authority: Authority) -> None:
        """Publish its keys from now on, and withdraw what it retired."""
        if authority != self._authority:
            self._authority = authority
            self.look_again()

    def look_again(self, namespaces: Iterable[str] | None = None) -> None:
        """Believe no longer that the keys are there: in these namespaces, or in all."""
        if namespaces is None:
            self.published.clear()
        else:
            self.published.difference_update(namespaces)

    def publish(self, namespaces: Iterable[str], now: float) -> None:
        """Have the keys in each of these namespaces; forget the others."""
        wanted, spent = set(namespaces), 0
        self.published &= wanted
        self.failed = {namespace: at for namespace, at in self.failed.items() if namespace in wanted}
        for namespace in sorted(wanted - self.published):
            if now < self.failed.get(namespace, now):
                continue
            try:
                self._publish_in(namespace)
            except BudgetSpent:
                self.failed[namespace] = self._budget.next_at
                spent += 1
            except ApiFailed as error:
                log.warning("the key for orders is not published in %s: %s", namespace, error)
                pause = BUSY_SECONDS if error.is_passing else RETRY_SECONDS
                self.failed[namespace] = now + max(pause, error.retry_after)
            else:
                self.failed.pop(namespace, None)
                self.published.add(namespace)
        self._budget.reserve(spent)

    def next_at(self) -> float | None:
        """When a failed namespace is tried again."""
        return min(self.failed.values(), default=None)

    def _publish_in(self, namespace: str) -> None:
        own = self._authority.public_keys
        try:
            stored = self._cluster.read_config_map(namespace, KEY_CONFIG_MAP)
        except ApiNotFound:
            passed(Failpoint.BEFORE_KEY_PUBLICATION)
            with self._budget.one(reserved=True):
                self._cluster.create_config_map(namespace, KEY_CONFIG_MAP, own)
            return
        retired: dict[str, None] = {
            key_id: None for key_id in stored.data if key_id == self._authority.retired_id and key_id not in own
        }
        if own.items() <= stored.data.items() and not retired:
            return
        after = (stored.data.keys() | own.keys()) - retired.keys()
        if len(after) > max(MOST_KEYS, len(stored.data)):
            log.warning(
                "ConfigMap %s/%s holds %d keys and not all of %s; remove one that no controller uses any more",
                *(namespace, KEY_CONFIG_MAP, len(stored.data), ", ".join(own)),
            )
            return
        with self._budget.one(reserved=True):
            self._cluster.patch_config_map(namespace, KEY_CONFIG_MAP, {**own, **retired}, stored.resource_version)
