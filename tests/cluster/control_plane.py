"""A real etcd and kube-apiserver for tests, in a network namespace of their own, gone with the test process.

Covers start, readiness, kubectl, killing and freezing the API server, counted writes, and Pod objects. There is no
kubelet, no scheduler and no controller-manager: nothing runs in pods, and nothing but `remove_namespace` empties a
namespace. Neighbours: binaries.py (what is started), etcd_process.py (its store),
network_namespace.py (where), credentials.py (who may ask), audit_log.py (what was written), pod_objects.py (what a pod
looks like).
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.api_requests import ApiRefused, ApiRequests
from cluster.audit_log import AuditLog, Write
from cluster.binaries import find_binaries, require
from cluster.credentials import ADMIN, Credentials, User
from cluster.etcd_process import ETCD_URL, LAGGING_PORT, EtcdProcess, start_logged
from cluster.namespace_removal import remove_namespace
from cluster.network_namespace import NetworkNamespace, network_namespace
from cluster.pod_objects import PodObject

READY_SECONDS = 60.0  # 2 to 4 s on an idle machine
_KUBECTL_SECONDS = 60.0
_POLL_SECONDS = 0.02
_HOST = "127.0.0.1"
_PORT = 6443
_SECOND_PORT = 6543
_ADVERTISED = "10.244.255.254"  # must not be a loopback address; the last of the pod network
_LOG_TAIL = 2000
_PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux", "openssl": "openssl"}


class ControlPlane:
    """One control plane; everything it writes is in `folder`, which is the caller's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running = contextlib.ExitStack()
        self._credentials = Credentials(folder / "credentials")
        self._audit_log = AuditLog(folder / "audit")

    def __enter__(self) -> Self:
        _require_machine()
        self._binaries = find_binaries()
        with contextlib.ExitStack() as running:
            self.network: NetworkNamespace = running.enter_context(network_namespace())
            self.api = self.api_at(_PORT)
            self._credentials.write(f"https://{_HOST}:{_PORT}")
            self.etcd = EtcdProcess(self.network, self._binaries.etcd, folder=self.folder)
            running.callback(self.etcd.kill)
            running.callback(self.kill_api_server)
            self.start_api_server()
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; of use only inside."""
        return self.kubeconfig_for(ADMIN)

    @property
    def certificate(self) -> Path:
        """What the API server shows, and what it is verified with; its key lies beside it."""
        return self._credentials.authority

    def kubeconfig_for(self, user: User) -> Path:
        """One of `credentials.USERS`, who may do what RBAC allows."""
        return self._credentials.kubeconfig(user)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` beside the API server; see NetworkNamespace.inside."""
        return self.network.inside(argv)

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, user: User = ADMIN
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl to its end; fails with what it wrote when `check` is set and it did not succeed."""
        # A cache of its own: the user's is keyed by the server's address, which all control planes share.
        options = [f"--kubeconfig={self.kubeconfig_for(user)}", f"--cache-dir={self.folder / 'kubectl-cache'}"]
        command = self.inside([str(self._binaries.kubectl), *options, *args])
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_KUBECTL_SECONDS, check=False
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done

    def apply(self, yaml_text: str) -> None:
        """`kubectl apply -f -`."""
        self.kubectl("apply", "-f", "-", stdin=yaml_text)

    def start_api_server(self) -> None:
        """Starts it and waits until it is ready."""
        self._api_server = self._start("kube-apiserver", self._api_server_command())
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(self.api):
            ended = self._api_server.poll() is not None or not self.etcd.is_running
            if ended or time.monotonic() > deadline:
                raise TimeoutError(f"no API server within {READY_SECONDS} s: {self._log_tails()}")
            time.sleep(_POLL_SECONDS)

    def kill_api_server(self) -> None:
        """SIGKILL, and gone when this returns."""
        self._api_server.kill()
        self._api_server.wait()

    def freeze_api_server(self) -> None:
        """It stays there and answers nothing."""
        self._api_server.send_signal(signal.SIGSTOP)

    def thaw_api_server(self) -> None:
        """It goes on where it was."""
        self._api_server.send_signal(signal.SIGCONT)

    def restore_api_server(self) -> None:
        """For the next test, whatever the last one did to it or its store."""
        if not self.etcd.is_running:
            self.etcd.start()
        self.thaw_api_server()
        if self._api_server.poll() is not None:
            self.start_api_server()

    def replace_certificate(self) -> None:
        """Another certificate, which another authority signed; the API server is away for a moment."""
        self.kill_api_server()
        for file in (self.certificate, self.certificate.with_suffix(".key")):
            file.unlink()
        self.start_api_server()

    def api_at(self, port: int) -> ApiRequests:
        """Requests to the API server at that port."""
        return ApiRequests(self.network, self._credentials, _HOST, port)

    @contextlib.contextmanager
    def second_api_server(self) -> Generator[int]:
        """Of the same store, which it reaches by `etcd_process.LAGGING_PORT`; its port, once it is ready."""
        command = self._api_server_command(_SECOND_PORT, f"http://{_HOST}:{LAGGING_PORT}")
        running = self._start("second-kube-apiserver", command)
        try:
            _await_ready(self.api_at(_SECOND_PORT))
            yield _SECOND_PORT
        finally:
            running.kill()
            running.wait()

    def back_up(self) -> None:
        """Keep the store as it is now; the API server has been away for a moment."""
        self._with_store_down(self.etcd.back_up)

    def roll_back(self) -> None:
        """The store as it was at `back_up`, as after a disaster: what was written since never happened."""
        self._with_store_down(self.etcd.roll_back)

    def mark(self) -> int:
        """Now, for `writes`."""
        return self._audit_log.mark()

    def writes(self, since: int = 0, *, events: bool = False, refused: bool = False) -> list[Write]:
        """The requests after the mark that could change something, counted at the API server; see AuditLog.writes."""
        return self._audit_log.writes(since, events=events, refused=refused)

    def write_times(self, since: int) -> list[tuple[float, str]]:
        """When each write after the mark was received, and whose it was."""
        return self._audit_log.write_times(since)

    def create_pod(
        self,
        namespace: str,
        name: str,
        labels: Mapping[str, str],
        pod_ip: str,
        annotations: Mapping[str, str] | None = None,
        memory_limit: str | None = None,
    ) -> str:
        """A Pod object that is running and ready at this address, by its status; its uid."""
        pod = PodObject(namespace, name, labels, pod_ip, annotations or {}, memory_limit)
        created = self.api.send_json("POST", f"/api/v1/namespaces/{namespace}/pods", pod.manifest())
        self.api.send("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", pod.running())
        return created["metadata"]["uid"]

    def delete_pod(self, namespace: str, name: str) -> None:
        """At once, with no grace."""
        self.api.send("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0")

    def create_namespace(self, name: str) -> None:
        """An empty one."""
        self.api.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def remove_namespace(self, name: str) -> None:
        """With all it holds, at once."""
        remove_namespace(self.api, name)

    def process_ids(self) -> tuple[int, int]:
        """Of etcd and of the API server."""
        return self.etcd.pid, self._api_server.pid

    def _with_store_down(self, change: Callable[[], None]) -> None:
        self.kill_api_server()
        self.etcd.kill()
        change()
        self.etcd.start()
        self.start_api_server()

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return start_logged(self.inside(command), self.folder / f"{name}.log")

    def _log_tails(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log}:\n{log.read_text(errors='replace')[-_LOG_TAIL:]}" for log in logs)

    def _api_server_command(self, port: int = _PORT, etcd_url: str = ETCD_URL) -> list[str]:
        key = self._credentials.service_account_key
        return [
            str(self._binaries.kube_apiserver),
            f"--etcd-servers={etcd_url}",
            f"--bind-address={_HOST}",
            f"--secure-port={port}",
            f"--advertise-address={_ADVERTISED}",
            f"--cert-dir={self._credentials.certificates}",
            f"--token-auth-file={self._credentials.tokens}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.245.0.0/24",
            "--disable-admission-plugins=ServiceAccount",  # wants an object that the controller-manager makes
            *self._audit_log.flags_for_next_start(),
        ]


def _await_ready(api: ApiRequests) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _is_ready(api):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no API server within {READY_SECONDS} s")
        time.sleep(_POLL_SECONDS)


def _is_ready(api: ApiRequests) -> bool:
    try:
        api.send("GET", "/readyz")
    except (OSError, ApiRefused):  # OSError also while it has not written its certificate
        return False
    return True


def _require_machine() -> None:
    require(os.geteuid() == 0, "a network namespace needs root")
    for program, package in _PROGRAMS.items():
        require(shutil.which(program) is not None, f"{program} is missing. On Debian: apt-get install {package}")
