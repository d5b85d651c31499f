"""One real controller process beside the API server: started, watched, frozen, killed.

Covers: its command line and environment, its probes and metrics, its end. Does not cover what it follows: that is the
cluster's. Neighbours: `installation` runs one for a whole module, the fault tests run several.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.control_plane import ControlPlane
from cluster.credentials import CONTROLLER
from memory_cgroup import MemoryCgroup

OWN_NAMESPACE = "membudget-system"
PORT = 9466
BRISK = Path(__file__).with_name("brisk_controller.py")
_TOKENS = "/run/secrets/kubernetes.io/serviceaccount"
_MOUNT = f'mount -t tmpfs none /run && mkdir -p {_TOKENS} && mount --bind "$0" {_TOKENS} && exec "$@"'
_MOUNTED = ("unshare", "--mount", "sh", "-c", _MOUNT)
"""What a kubelet mounts is there for this process alone; each program becomes the next, so the pid stays."""
_CRASH_SECONDS = 60.0
_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0
"""What a pod has until SIGKILL in our chart."""


class ControllerProcess:
    """From start to end; its log is appended to."""

    def __init__(
        self,
        control_plane: ControlPlane,
        log: Path,
        *,
        port: int = PORT,
        failpoint: str | None = None,
        kubeconfig: Path | None = None,
        arguments: Sequence[str] = (),
        brisk: bool = False,
        service_account: Path | None = None,
        cgroup: MemoryCgroup | None = None,
    ) -> None:
        self._network = control_plane.network
        self.log = log
        self._port = port
        program = [str(BRISK)] if brisk else ["-m", "membudget_controller"]
        command = [sys.executable, *program, f"--namespace={OWN_NAMESPACE}", "--host=127.0.0.1"]
        environment = os.environ | {"KUBECONFIG": str(kubeconfig or control_plane.kubeconfig_for(CONTROLLER))}
        if service_account is not None:
            command = [*_MOUNTED, str(service_account), *command]
            environment |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
            del environment["KUBECONFIG"]
        if failpoint is not None:
            environment |= {"FAILPOINT": failpoint}
        inside = control_plane.inside([*command, f"--port={port}", *arguments])
        with log.open("ab") as written:
            if cgroup is not None:
                self.process = cgroup.run(inside, env=environment, stdout=written, stderr=subprocess.STDOUT)
            else:
                self.process = subprocess.Popen(inside, env=environment, stdout=written, stderr=subprocess.STDOUT)

    def is_ready(self) -> bool:
        """By its probe; fails when the process has ended."""
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-2000:]
        try:
            self.ask("/readyz")
        except OSError:
            return False
        return True

    def counted(self, metric: str) -> float:
        """The sum over all series whose name begins so."""
        lines = self.ask("/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))

    def ask(self, path: str) -> str:
        """What it answers there; OSError where that is no success."""
        with self._network.connect("127.0.0.1", self._port, 5.0) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            with connection.makefile("rb") as file:
                status = file.readline().decode()
                content = file.read().decode()
        if " 200 " not in status:
            raise ConnectionError(f"{path}: {status}")
        return content

    def wait_for_crash(self) -> None:
        """Until its failpoint has ended it; fails when it ends otherwise, or not."""
        ended = self.process.wait(_CRASH_SECONDS)
        assert ended == -signal.SIGKILL, f"exit code {ended}: {self.log.read_text(errors='replace')[-2000:]}"

    def kill_when(self, condition: Callable[[], bool]) -> None:
        """As soon as it has come so far."""
        deadline = time.monotonic() + _CRASH_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")[-2000:]
            time.sleep(_POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and gone when this returns; once more does no harm."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code, within 10 s."""
        self.process.terminate()
        return self.process.wait(_STOP_SECONDS)

    def freeze(self) -> None:
        """It stays there and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self.process.send_signal(signal.SIGCONT)
