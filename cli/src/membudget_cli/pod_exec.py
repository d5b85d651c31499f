"""The way to a sidecar in a pod: exec into its container, as the official client does it.

Covers: finding the sidecar's container, one question. The user's own rights decide: exec is asked of the API server
with the credentials of KUBECONFIG. Does not cover what is asked (`sidecar_client`).
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from membudget_cli.cluster import SECONDS, ClusterUnreachable, cluster_client
from membudget_cli.sidecar_client import SidecarUnreachable

PORT_NAME: Final = "membudget"
"""The sidecar's container is the one with a port of this name, as the chart and the PodMonitor have it."""
MODULE: Final = "membudget_sidecar.ask"


class PodExec:
    """The sidecar in one pod."""

    def __init__(self, pod: str) -> None:
        self._namespace, _, self._name = pod.partition("/")
        if not self._namespace or not self._name:
            raise SidecarUnreachable(f"{pod!r} names no pod: write NAMESPACE/NAME")

    def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """See `Transport`."""
        try:
            with cluster_client() as client:
                answered = self._exec(client.CoreV1Api(), ["python3", "-m", MODULE, method, path, *_text(body)])
        except ClusterUnreachable as error:
            raise SidecarUnreachable(str(error)) from None
        status, newline, content = answered.partition("\n")
        if not newline or not status.isdecimal():
            raise SidecarUnreachable(f"{self._namespace}/{self._name}: {answered.strip()[:300]}")
        return int(status), content.encode()

    def _exec(self, api: Any, command: list[str]) -> str:
        container = self._container(api.read_namespaced_pod(self._name, self._namespace, _request_timeout=SECONDS))
        stream: Any = importlib.import_module("kubernetes.stream")
        running = stream.stream(
            api.connect_get_namespaced_pod_exec,
            self._name,
            self._namespace,
            container=container,
            command=command,
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
            _preload_content=False,
        )
        running.run_forever(timeout=SECONDS)
        return running.read_stdout() or running.read_stderr()

    def _container(self, pod: Any) -> str:
        """A native sidecar is an init container; older clusters have it among the others."""
        for container in (*(pod.spec.init_containers or ()), *pod.spec.containers):
            if any(port.name == PORT_NAME for port in container.ports or ()):
                return container.name
        raise SidecarUnreachable(
            f"{self._namespace}/{self._name} has no sidecar: none of its containers has a port named {PORT_NAME!r}"
        )


def _text(body: bytes | None) -> list[str]:
    return [] if body is None else [body.decode()]
