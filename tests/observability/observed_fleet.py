"""A small fleet of real processes, as Prometheus finds one: a controller, a retrieval pod, and three services in pods.

Covers: starting and ending them, where each is scraped, and what a cause needs: policies, commands, signals. Does not
cover which cause makes which alert (`causes`). The retrieval pod follows the controller's orders, the services follow
policy files; all but one have a memory cgroup with a limit.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from cluster.control_plane import ControlPlane
from cluster.installation import Installation, PodPlace, RetrievalPod, until
from membudget_contract.quantities import MIB
from memory_cgroup import memory_cgroup
from observability.prometheus_server import Target
from sidecar.sidecar_process import Started
from system import growing_process, service_process

NAMESPACE = "search"
CONTROLLER_PORT = 9466
SIDECAR_PORT = 9465
POLICY = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {{name: {name}, namespace: search}}
spec: {spec}
"""


class ServicePod:
    """A service on the runtime, told by lines on its input, with a sidecar that follows a policy file."""

    def __init__(self, control_plane: ControlPlane, folder: Path, spec: str, limit_bytes: int | None) -> None:
        self.name = folder.name
        self._folder = folder
        self._container = contextlib.ExitStack()
        folder.mkdir()
        self.write_policy(spec)
        command = self._command(folder)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        if limit_bytes is None:
            self.process = subprocess.Popen(command, **pipes)
        else:
            cgroup = self._container.enter_context(memory_cgroup(limit_bytes))
            self.process = cgroup.run(command, **pipes)

        def launch(argv: Sequence[str], **keywords: Any) -> subprocess.Popen[Any]:
            return subprocess.Popen(control_plane.inside(argv), **keywords)

        self.sidecar = Started(folder, "--policy", str(folder / "policy.yaml"), launch=launch)

    @property
    def target(self) -> Target:
        """Its sidecar."""
        return Target("sidecar", f"127.0.0.1:{self.sidecar.port}", {"namespace": NAMESPACE, "pod": self.name})

    def write_policy(self, spec: str) -> None:
        """As an editor saves: beside, then renamed over."""
        aside = self._folder / "policy.yaml.new"
        aside.write_text(POLICY.format(name=self.name, spec=spec))
        aside.replace(self._folder / "policy.yaml")

    def send(self, command: str) -> None:
        """One command, without awaiting its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def tell(self, command: str) -> str:
        """One command and its answer."""
        assert self.process.stdout is not None
        self.send(command)
        return self.process.stdout.readline()

    def close(self) -> None:
        """End both."""
        self.sidecar.process.kill()
        self.sidecar.process.wait()
        self.process.kill()
        self.process.communicate()
        self._container.close()

    def _command(self, folder: Path) -> list[str]:
        return [sys.executable, service_process.__file__, str(folder / "service"), str(folder / "engine.sock")]


class GrowingPod(ServicePod):
    """One whose unmanaged memory grows by so many bytes a second once it is told `grow`."""

    BYTES_A_SECOND = MIB
    GROWS_BY = 110 * MIB

    def _command(self, folder: Path) -> list[str]:
        figures = [str(self.GROWS_BY), str(self.BYTES_A_SECOND)]
        return [sys.executable, growing_process.__file__, str(folder), "inside", *figures]


class ObservedFleet:
    """All of it; everything it writes is in `folder`."""

    def __init__(self, control_plane: ControlPlane, data: Path, folder: Path) -> None:
        self.control_plane = control_plane
        self._closing = contextlib.ExitStack()
        sampling = "sampling: {intervalSeconds: 1}"
        with contextlib.ExitStack() as started:
            self.leaky = self._service(
                GrowingPod, started, folder / "leaky-0", f"{{budget: {{total: 200Mi}}, {sampling}}}", 256 * MIB
            )
            self.crowded = self._service(
                ServicePod, started, folder / "crowded-0", f"{{budget: {{total: 80Mi}}, {sampling}}}", 100 * MIB
            )
            spec = f"{{budget: {{total: 100Mi}}, spill: {{maxSize: 8Mi}}, {sampling}}}"
            self.plain = self._service(ServicePod, started, folder / "plain-0", spec, None)
            control_plane.create_namespace(NAMESPACE)
            place = PodPlace(NAMESPACE, "retriever-0", "10.244.1.10", 18080)
            self.retriever = RetrievalPod(control_plane, place, data, folder / "retriever-0")
            started.callback(self.retriever.close)
            self.installation = Installation(control_plane, folder)
            self.installation.install()
            self.installation.start_controller()
            started.callback(self.installation.close)
            self._closing = started.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def services(self) -> tuple[ServicePod, ...]:
        """Those with a policy file."""
        return self.leaky, self.crowded, self.plain

    def targets(self) -> list[Target]:
        """What a Prometheus should scrape."""
        place = self.retriever.place
        pod = {"namespace": place.namespace, "pod": place.name}
        own = {"namespace": "membudget-system", "pod": "membudget-controller-0"}
        return [
            Target("controller", f"127.0.0.1:{CONTROLLER_PORT}", own),
            Target("sidecar", f"{place.address}:{SIDECAR_PORT}", pod),
            Target("engine", f"127.0.0.1:{place.engine_port}", pod),
            *(service.target for service in self.services),
        ]

    def follow_policies(self) -> None:
        """Each pod under a policy of its own."""
        self.apply_policy("140Mi")
        until(lambda: self.installation.is_programmed(NAMESPACE, "retrieval"))

    def apply_policy(self, total: str, **components: str) -> None:
        """`kubectl apply` of the retrieval pod's policy."""
        budget: dict[str, Any] = {"total": total, "signal": "ResidentSetSize"}
        if components:
            budget["components"] = components
        self.installation.apply_policy(NAMESPACE, "retrieval", budget=budget, sampling={"intervalSeconds": 1})

    def freeze_sidecar(self) -> None:
        """The retrieval pod's; it stays there and answers nobody."""
        self.retriever.sidecar.send_signal(signal.SIGSTOP)

    def thaw_sidecar(self) -> None:
        """It goes on where it was."""
        self.retriever.sidecar.send_signal(signal.SIGCONT)

    def _service(
        self, kind: type[ServicePod], started: contextlib.ExitStack, folder: Path, spec: str, limit_bytes: int | None
    ) -> ServicePod:
        made = kind(self.control_plane, folder, spec, limit_bytes)
        started.callback(made.close)
        return made
