"""membudget on the node as people install it: by helm, in a namespace under Pod Security `restricted`.

Covers: installing, the retrieval pods and what runs in them, policies by kubectl, metrics and queries at the pods'
addresses. Neighbours: node.py (the cluster), load.py (many queries).
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from node.node import Node
from node.sandbox import until

CHART = Path(__file__).parents[2] / "charts" / "membudget"
NAMESPACE = "retrieval"
RELEASE = "membudget"
POLICY = "retriever"
ENGINE_PORT, SIDECAR_PORT, CONTROLLER_PORT = 8080, 9465, 9466
ENGINE, SIDECAR, CONTROLLER = "engine", "membudget", "controller"
READY_SECONDS = 120.0
REQUEST_SECONDS = 10.0


@dataclass(frozen=True)
class Pod:
    """One pod as the API server last told of it."""

    name: str
    uid: str
    address: str
    containers: Mapping[str, Mapping[str, Any]]
    """Container name -> its status, native sidecars too."""
    deleting: bool

    @property
    def ready(self) -> bool:
        """All of its containers are, and nobody is deleting it."""
        return not self.deleting and bool(self.containers) and all(c.get("ready") for c in self.containers.values())

    def restarts(self, container: str) -> int:
        """So often the kubelet started it again."""
        return self.containers[container]["restartCount"]

    def container_id(self, container: str) -> str:
        """As containerd knows it."""
        return self.containers[container]["containerID"].removeprefix("containerd://")


class Installed:
    """The chart as one release."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def install(self) -> None:
        """As the README says, with the example; images come from the node's own store."""
        self.node.kubectl("create", "namespace", NAMESPACE)
        self.node.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        self.helm("install")
        until(lambda: len(self.ready_pods()) == 1 and self._controller_ready(), READY_SECONDS)

    def helm(self, verb: str, *values: str) -> None:
        """`helm install` or `helm upgrade` of the chart with the example and these values."""
        chosen = ["example.enabled=true", "images.pullPolicy=Never", "controller.resizePods=true", *values]
        options = [option for value in chosen for option in ("--set", value)]
        self.node.helm(verb, RELEASE, str(CHART), "--namespace", NAMESPACE, *options)

    def pods(self, app: str = "retriever") -> list[Pod]:
        """Those of one deployment, oldest first."""
        return self._pods(f"app={app}")

    def ready_pods(self, app: str = "retriever") -> list[Pod]:
        """Those that may be asked."""
        return [pod for pod in self.pods(app) if pod.ready]

    def pod(self, app: str = "retriever") -> Pod:
        """The only one."""
        (only,) = [pod for pod in self.pods(app) if not pod.deleting]
        return only

    def controller(self) -> Pod:
        """The controller's."""
        (only,) = self._pods("app.kubernetes.io/component=controller")
        return only

    def apply_policy(self, name: str = POLICY, app: str = "retriever", **spec: Any) -> int:
        """`kubectl apply`; the policy's new generation."""
        policy = {
            "apiVersion": "membudget.dev/v1alpha1",
            "kind": "MemoryPolicy",
            "metadata": {"namespace": NAMESPACE, "name": name},
            "spec": {"selector": {"matchLabels": {"app": app}}, **spec},
        }
        self.node.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(policy))
        return self.node.get("mempol", name, "-n", NAMESPACE)["metadata"]["generation"]

    def is_programmed(self, name: str = POLICY) -> bool:
        """Every pod has acknowledged the newest generation."""
        return self.condition("Programmed", name)[0] == "True"

    def condition(self, kind: str, name: str = POLICY) -> tuple[str, str, str]:
        """Status, reason and message of one of the policy's conditions; empty until it speaks of the newest spec."""
        policy = self.node.get("mempol", name, "-n", NAMESPACE)
        for found in policy.get("status", {}).get("conditions", []):
            if (found["type"], found["observedGeneration"]) == (kind, policy["metadata"]["generation"]):
                return found["status"], found["reason"], found["message"]
        return "", "", ""

    def transitions(self, kind: str, name: str = POLICY) -> list[str]:
        """The reasons that a condition of the policy went through, by its events, oldest first."""
        listed = self.node.get("events.events.k8s.io", "-n", NAMESPACE)["items"]
        of_policy = [event for event in listed if event["regarding"].get("name") == name]
        told = [event for event in of_policy if event["note"].startswith(f"{kind}: ")]
        return [event["reason"] for event in sorted(told, key=lambda event: event["eventTime"])]

    def metrics(self, address: str, port: int = SIDECAR_PORT) -> dict[str, float]:
        """What is scraped: `name` or `name{label}` by the label's value -> figure. Raises OSError."""
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(self.ask(address, port, "/metrics")):
            for sample in family.samples:
                labels = ",".join(sample.labels.values())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def ask(self, address: str, port: int, path: str) -> str:
        """One GET at a pod's address. Raises OSError, also for anything but 200."""
        connection = connect(self.node, address, port)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(repr(error)) from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ConnectionError(f"{path}: HTTP {response.status}: {content[:200]}")
        return content

    def processes(self, pod: Pod, container: str) -> list[int]:
        """The pids of a container's processes, as this machine numbers them."""
        return [int(pid) for pid in (self.cgroup(pod, container) / "cgroup.procs").read_text().split()]

    def cgroup(self, pod: Pod, container: str) -> Path:
        """The container's own, in the hierarchy with the memory controller."""
        return self.node.pod_cgroup(pod.uid) / pod.container_id(container)

    def limit(self, pod: Pod, container: str) -> int:
        """What the kernel holds the container to, in bytes."""
        folder = self.cgroup(pod, container)
        file = next(f for f in (folder / "memory.limit_in_bytes", folder / "memory.max") if f.exists())
        return int(file.read_text())

    def account(self) -> str:
        """Pods, events and the ends of their logs, for a run that failed."""
        parts = [self.node.kubectl("get", "pods,mempol,events", "-n", NAMESPACE, "-o", "wide", check=False).stdout]
        for pod in ("-l=app in (retriever, retriever-writer)", "-l=app.kubernetes.io/component=controller"):
            chosen = ("logs", "-n", NAMESPACE, pod, "--all-containers", "--prefix", "--tail=30")
            parts.append(self.node.kubectl(*chosen, check=False).stdout)
        return "\n".join(parts)

    def _controller_ready(self) -> bool:
        return all(pod.ready for pod in self._pods("app.kubernetes.io/component=controller"))

    def _pods(self, selector: str) -> list[Pod]:
        items = self.node.get("pods", "-n", NAMESPACE, "-l", selector, "--sort-by=.metadata.creationTimestamp")["items"]
        return [_pod(item) for item in items]


def connect(node: Node, address: str, port: int) -> http.client.HTTPConnection:
    """A connection from inside the pod network; raises OSError."""
    connection = http.client.HTTPConnection(address, port, timeout=REQUEST_SECONDS)
    connection.sock = node.sandbox.network.connect(address, port, REQUEST_SECONDS)
    # As http.client sets it; without, every body waits 40 ms for the acknowledgement of its header.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.auto_open = False  # a second socket would be made outside
    return connection


def resident_bytes(pid: int) -> dict[str, int]:
    """VmRSS, RssAnon and VmHWM of a process, from the kernel."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[0] in {"VmRSS:", "RssAnon:", "VmHWM:"}}


def _pod(item: dict[str, Any]) -> Pod:
    status, metadata = item["status"], item["metadata"]
    native = {c["name"] for c in item["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"}
    statuses = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
    main = {container["name"] for container in item["spec"]["containers"]}
    return Pod(
        metadata["name"],
        metadata["uid"],
        status.get("podIP", ""),
        {s["name"]: s for s in statuses if s["name"] in native | main},
        "deletionTimestamp" in metadata,
    )
