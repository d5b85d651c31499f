"""The public key in each namespace where a sidecar needs it to believe an order.

Covers: the ConfigMap `membudget-keys` in every namespace that holds a policy or an opted-in pod: made where it is
missing, one key added where it lacks ours, nothing ever removed. Pods mount it. Does not make keys (`keys`).

A namespace is looked at when it appears, at each full list, and when a pod there does not know the key; written only
where the key is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from membudget_controller.cluster import Cluster
from membudget_controller.errors import ApiFailed, ApiNotFound
from membudget_controller.keys import OrderKey
from membudget_controller.settings import KEY_CONFIG_MAP

MOST_KEYS: Final = 2
"""The present key and the one before or after it; sidecars read no more."""
RETRY_SECONDS: Final = 15.0

log = logging.getLogger(__name__)


class KeyPublication:
    """Remembers where the key is published; one thread."""

    def __init__(self, cluster: Cluster, key: OrderKey) -> None:
        self._cluster = cluster
        self._key = key
        self.published: set[str] = set()
        self.failed: dict[str, float] = {}
        """Namespaces where it could not be published, with when that is tried again."""

    def look_again(self, namespaces: Iterable[str] | None = None) -> None:
        """Believe no longer that the key is there: in these namespaces, or in all."""
        if namespaces is None:
            self.published.clear()
        else:
            self.published.difference_update(namespaces)

    def publish(self, namespaces: Iterable[str], now: float) -> None:
        """Have the key in each of these namespaces; forget the others."""
        wanted = set(namespaces)
        self.published &= wanted
        self.failed = {namespace: at for namespace, at in self.failed.items() if namespace in wanted}
        for namespace in sorted(wanted - self.published):
            if now < self.failed.get(namespace, now):
                continue
            try:
                self._publish_in(namespace)
            except ApiFailed as error:
                log.warning("the key for orders is not published in %s: %s", namespace, error)
                self.failed[namespace] = now + RETRY_SECONDS
            else:
                self.failed.pop(namespace, None)
                self.published.add(namespace)

    def next_at(self) -> float | None:
        """When a failed namespace is tried again."""
        return min(self.failed.values(), default=None)

    def _publish_in(self, namespace: str) -> None:
        own = {self._key.key_id: self._key.public_text}
        try:
            stored = self._cluster.read_config_map(namespace, KEY_CONFIG_MAP)
        except ApiNotFound:
            self._cluster.create_config_map(namespace, KEY_CONFIG_MAP, own)
            return
        if not _lacks(stored.data, own):
            return
        if self._key.key_id not in stored.data and len(stored.data) >= MOST_KEYS:
            log.warning(
                "ConfigMap %s/%s holds %d keys and not %s; remove one that no controller uses any more",
                *(namespace, KEY_CONFIG_MAP, len(stored.data), self._key.key_id),
            )
            return
        self._cluster.patch_config_map(namespace, KEY_CONFIG_MAP, own, stored.resource_version)


def _lacks(data: Mapping[str, str], own: Mapping[str, str]) -> bool:
    return any(data.get(key_id) != text for key_id, text in own.items())
