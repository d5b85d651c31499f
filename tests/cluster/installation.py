"""membudget in a real cluster without a kubelet: the definition, the controller, and retrieval pods of real processes.

Covers: what the chart and the kubelet do for a pod: applying the definition and the roles, mounting the public keys,
starting engine and sidecar at the pod's address, inside the network namespace. Neighbours: `control_plane`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cluster.api_requests import ApiRefused
from cluster.control_plane import ControlPlane
from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable, UnixSocket
from membudget_contract.policy_status import ConditionType, PolicyStatus
from membudget_contract.profiles import PRODUCTION_SPLIT, SEMANTIC_CACHE
from membudget_contract.quantities import MIB
from membudget_contract.resolve import split_by_ratio
from membudget_contract.sidecar_api import ActionKind, ActionRecord, Status
from memory_cgroup import memory_cgroup

CHART_FILES = Path(__file__).parents[2] / "charts" / "membudget" / "files"
KEYS = "membudget-keys"
WITHIN_SECONDS = 30.0
CONTAINER_LIMIT = 200 * MIB
"""Of the engine's memory cgroup, as its container would have."""


class Installation:
    """The definition and the roles applied, one controller running."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self.control_plane = control_plane
        self.controller_log = folder / "controller.log"
        self.controller: ControllerProcess | None = None

    def install(self) -> None:
        """As `helm install` will: twice does no harm."""
        self.install_definition()
        self.control_plane.apply(f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {OWN_NAMESPACE}}}}}")
        self.control_plane.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": _controller_rights()}))

    def install_definition(self) -> None:
        """Of the kind alone, served when this returns."""
        self.control_plane.kubectl(
            "apply", "--server-side", "-f", str(CHART_FILES / "memorypolicies.membudget.dev.yaml")
        )
        self.control_plane.kubectl("wait", "--for=condition=Established", "crd/memorypolicies.membudget.dev")
        until(self._is_served)  # the API server takes its handlers up some time after it has called them established

    def _is_served(self) -> bool:
        """By a write that changes nothing: a definition that comes back may be listed before it can be written."""
        spec = {"selector": {"matchLabels": {"app": "retriever"}}}
        body = {
            "apiVersion": "membudget.dev/v1alpha1",
            "kind": "MemoryPolicy",
            "metadata": {"name": "any"},
            "spec": spec,
        }
        path = "/apis/membudget.dev/v1alpha1/namespaces/default/memorypolicies?dryRun=All"
        try:
            self.control_plane.api.send("POST", path, body)
        except ApiRefused:
            return False
        return True

    def start_controller(self) -> None:
        """With the rights of its service account; ready when this returns."""
        self.controller = ControllerProcess(self.control_plane, self.controller_log)
        until(self.controller.is_ready)

    def kill_controller(self) -> None:
        """SIGKILL."""
        if self.controller is not None:
            self.controller.kill()

    def close(self) -> None:
        """End the controller."""
        self.kill_controller()

    def apply_policy(self, namespace: str, name: str, **spec: Any) -> None:
        """`kubectl apply` of a policy; the selector is `app: retriever` unless said otherwise."""
        policy = {
            "apiVersion": "membudget.dev/v1alpha1",
            "kind": "MemoryPolicy",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"selector": {"matchLabels": {"app": "retriever"}}, **spec},
        }
        self.control_plane.apply(json.dumps(policy))

    def policy_status(self, namespace: str, name: str) -> tuple[int, PolicyStatus]:
        """The generation of a policy, and what its status says."""
        read = self.control_plane.kubectl("get", "mempol", name, "-n", namespace, "-o", "json")
        document = json.loads(read.stdout)
        return document["metadata"]["generation"], msgspec.convert(document.get("status", {}), PolicyStatus)

    def is_programmed(self, namespace: str, name: str) -> bool:
        """Every pod acknowledged the newest generation."""
        generation, status = self.policy_status(namespace, name)
        return any(
            condition.type is ConditionType.PROGRAMMED
            and (condition.status, condition.observed_generation) == ("True", generation)
            for condition in status.conditions
        )

    def pushes(self) -> float:
        """Orders that the controller sent since it started, as its metrics count them."""
        return self._running().counted("membudget_controller_pushes_total")

    def reports(self) -> float:
        """Reports that it asked for."""
        return self._running().counted("membudget_controller_reports_total")

    def membudget(self, *arguments: str) -> tuple[int, str]:
        """The command line as an administrator types it: exit code and output."""
        command = self.control_plane.inside([sys.executable, "-m", "membudget_cli", *arguments])
        environment = os.environ | {"KUBECONFIG": str(self.control_plane.kubeconfig), "COLUMNS": "200"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def _running(self) -> ControllerProcess:
        assert self.controller is not None
        return self.controller


def _controller_rights() -> list[dict[str, Any]]:
    """What the chart's templates make, without helm: the rules are read where those read them."""
    metadata = {"name": "membudget-controller"}
    own = {"name": "membudget-controller-keys", "namespace": OWN_NAMESPACE}
    account = {**metadata, "namespace": OWN_NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {"apiVersion": "v1", "kind": "Secret", "metadata": own, "type": "Opaque"},
        *_granted("Cluster", metadata, account, "controller-rules.yaml", "controller-cluster-rules.yaml"),
        *_granted("", own, account, "controller-keys-rules.yaml"),
    ]


def _granted(scope: str, metadata: dict[str, str], account: dict[str, str], *files: str) -> list[dict[str, Any]]:
    """A role with the rules of these files, and its binding to the account."""
    group = "rbac.authorization.k8s.io"
    rules = [rule for name in files for rule in yaml.safe_load((CHART_FILES / name).read_text())]
    role = {"apiGroup": group, "kind": f"{scope}Role", "name": metadata["name"]}
    made = {"apiVersion": f"{group}/v1", "metadata": metadata}
    return [
        {**made, "kind": f"{scope}Role", "rules": rules},
        {**made, "kind": f"{scope}RoleBinding", "roleRef": role, "subjects": [{"kind": "ServiceAccount", **account}]},
    ]


@dataclass(frozen=True)
class PodPlace:
    """Which pod, where."""

    namespace: str
    name: str
    address: str
    engine_port: int


class RetrievalPod:
    """A Pod object, and an engine and a sidecar at its address."""

    def __init__(self, control_plane: ControlPlane, place: PodPlace, data: Path, folder: Path) -> None:
        self._control_plane = control_plane
        self.place = place
        self._folder = folder
        self.keys = folder / "keys"
        self.keys.mkdir(parents=True)
        labels = {"app": "retriever", "membudget.dev/managed": "true"}
        self.uid = control_plane.create_pod(place.namespace, place.name, labels, place.address)
        self._log = (folder / "pod.log").open("ab")
        self._container = contextlib.ExitStack()
        self.cgroup = self._container.enter_context(memory_cgroup(CONTAINER_LIMIT))
        engine = ["serve", f"--data={data}", f"--state={folder / 'engine'}", f"--run={folder / 'run'}"]
        command = [sys.executable, "-m", "membudget_engine", *engine, f"--port={place.engine_port}"]
        self.engine = self.cgroup.run(control_plane.inside(command), stdout=self._log, stderr=subprocess.STDOUT)
        self.sidecar = self._start_sidecar()
        self._unmounted = threading.Event()
        self._mount = threading.Thread(target=self._mount_keys, daemon=True)
        self._mount.start()

    def status(self) -> Status | None:
        """What its sidecar says; None while it does not answer."""
        try:
            return SidecarClient(UnixSocket(self._folder / "run" / "sidecar.sock")).status()
        except SidecarUnreachable:
            return None

    def reloads(self) -> list[ActionRecord]:
        """The reloads that its sidecar remembers, oldest first; none while it does not answer."""
        try:
            actions = SidecarClient(UnixSocket(self._folder / "run" / "sidecar.sock")).actions()
        except SidecarUnreachable:
            return []
        return [action for action in actions if action.kind is ActionKind.RELOAD]

    def collections(self) -> set[str]:
        """What the engine serves, as it says."""
        read = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
        asked = f"http://127.0.0.1:{self.place.engine_port}/v1/collections"
        command = self._control_plane.inside([sys.executable, "-c", read, asked])
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return {collection["name"] for collection in json.loads(answer.stdout)}

    def holds(self, total_bytes: int) -> bool:
        """The sidecar has a plan of that total, and the engine reports the ceilings that follow from it."""
        status = self.status()
        if status is None or status.engine != "Connected" or status.budget_bytes != total_bytes:
            return False
        ceilings = [part.budget_bytes for part in status.components if part.name == SEMANTIC_CACHE]
        return ceilings == [split_by_ratio(total_bytes, PRODUCTION_SPLIT)[SEMANTIC_CACHE]]

    def resident_bytes(self) -> int:
        """The engine's, from the kernel."""
        lines = Path(f"/proc/{self.engine.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024

    def ask(self, first: int, count: int) -> tuple[int, int]:
        """So many distinct questions; how many were answered and how many failed."""
        script = str(Path(__file__).with_name("ask_engine.py"))
        command = [sys.executable, script, str(self.place.engine_port), str(first), str(count)]
        done = subprocess.run(
            self._control_plane.inside(command), capture_output=True, text=True, check=True, timeout=120
        )
        answered, failed = done.stdout.split()
        return int(answered), int(failed)

    def kill_sidecar(self) -> None:
        """SIGKILL."""
        self.sidecar.kill()
        self.sidecar.wait()

    def start_sidecar(self) -> None:
        """As the kubelet starts a container again."""
        self.sidecar = self._start_sidecar()

    def close(self) -> None:
        """End its processes."""
        self._unmounted.set()
        self._mount.join()
        self.kill_sidecar()
        self._container.close()
        self._log.close()

    def _start_sidecar(self) -> subprocess.Popen[bytes]:
        identity = {
            "MEMBUDGET_POD_NAMESPACE": self.place.namespace,
            "MEMBUDGET_POD_NAME": self.place.name,
            "MEMBUDGET_POD_UID": self.uid,
        }
        folders = [f"--run={self._folder / 'run'}", f"--state={self._folder / 'sidecar'}", f"--keys={self.keys}"]
        command = [sys.executable, "-m", "membudget_sidecar", *folders, f"--host={self.place.address}"]
        return subprocess.Popen(
            self._control_plane.inside(command),
            env=os.environ | identity, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _mount_keys(self) -> None:
        """The kubelet's part: the ConfigMap as files, a moment after it changed."""
        while not self._unmounted.wait(0.3):
            read = self._control_plane.kubectl(
                "get", "configmap", KEYS, "-n", self.place.namespace, "-o", "json", check=False
            )
            if read.returncode:
                continue
            published: dict[str, str] = json.loads(read.stdout).get("data", {})
            for name, content in published.items():
                if not (self.keys / name).exists():
                    aside = self.keys / f".{name}"
                    aside.write_text(content)
                    aside.replace(self.keys / name)
            for mounted in self.keys.iterdir():
                if mounted.name.lstrip(".") not in published:
                    mounted.unlink()


def until(condition: Callable[[], bool], seconds: float = WITHIN_SECONDS) -> None:
    """Wait for a condition, at most that long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.1)
