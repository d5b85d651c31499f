"""What every pod of ours must say for Pod Security `restricted`, and more: a root that nobody can write to."""

from typing import Any

POD = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All of a pod's, those that run before or beside the others too."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def opened(pod: dict[str, Any]) -> list[str]:
    """What a restricted pod leaves closed and this one does not."""
    fields = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    closed = {"name", "emptyDir", "configMap", "persistentVolumeClaim"}
    volumes = [volume["name"] for volume in pod.get("volumes", []) if set(volume) - closed]
    ports = [port["name"] for c in containers(pod) for port in c.get("ports", []) if "hostPort" in port]
    return fields + volumes + ports
