"""A service's ready endpoints, followed as a proxy on the node follows them."""

from __future__ import annotations

import threading
from typing import Any, Self

from node.installed import NAMESPACE, Installed

LOOK_SECONDS = 0.2


class ReadyEndpoints:
    """Looked at five times a second in a thread; `addresses` is what the last look found."""

    def __init__(self, installed: Installed, service: str) -> None:
        self._installed = installed
        self._service = service
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.addresses = self._look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self.addresses = self._look()

    def _look(self) -> list[str]:
        chosen = ("endpointslices", "-n", NAMESPACE, "-l", f"kubernetes.io/service-name={self._service}")
        slices: list[dict[str, Any]] = self._installed.node.get(*chosen)["items"]
        endpoints: list[dict[str, Any]] = [each for found in slices for each in found.get("endpoints") or ()]
        return [address for each in endpoints if each["conditions"].get("ready") for address in each["addresses"]]
