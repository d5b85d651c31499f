"""Pod objects as the controller sees them where no kubelet runs: accepted by the API server, their status written here.

The pods have the shape that matters to membudget: a container `engine` and a native sidecar `membudget`. No process
stands behind them unless a test starts one at their address with `ControlPlane.inside`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

NODE = "node-1"  # as the scheduler would write; there is no such object
_IMAGE = "localhost/never-pulled"
_CONDITIONS = ("PodScheduled", "Initialized", "ContainersReady", "Ready")


@dataclass(frozen=True)
class PodObject:
    """What a test says about a pod."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    pod_ip: str
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    memory_limit: str | None = None
    """The engine container's, as a quantity."""

    def manifest(self) -> dict[str, Any]:
        """As a user would create it."""
        engine: dict[str, Any] = {"name": "engine", "image": _IMAGE}
        if self.memory_limit is not None:
            engine["resources"] = {"limits": {"memory": self.memory_limit}}
        sidecar = {"name": "membudget", "image": _IMAGE, "restartPolicy": "Always"}
        names = {"namespace": self.namespace, "name": self.name}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**names, "labels": dict(self.labels), "annotations": dict(self.annotations)},
            "spec": {"nodeName": NODE, "initContainers": [sidecar], "containers": [engine]},
        }

    def running(self) -> dict[str, Any]:
        """The patch of its status that a kubelet would write when all of it runs and is ready."""
        conditions = [{"type": condition, "status": "True"} for condition in _CONDITIONS]
        addresses = {"podIP": self.pod_ip, "podIPs": [{"ip": self.pod_ip}]}
        containers = {"containerStatuses": [_started("engine")], "initContainerStatuses": [_started("membudget")]}
        return {"status": {"phase": "Running", **addresses, **containers, "conditions": conditions}}


def _started(container: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = {"name": container, "image": _IMAGE, "imageID": _IMAGE, "ready": True, "started": True, "restartCount": 0}
    return {**said, "state": {"running": {"startedAt": now}}}
