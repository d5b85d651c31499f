"""A real Kubernetes on one node: control plane, scheduler, containerd and kubelet, gone with the test process.

Covers: what is started and how, images, kubectl, helm, the cgroups and processes of pods. Nothing is pulled: images are
imported from archives. There is no kube-proxy; pods are asked at their own addresses. Neighbours: sandbox.py
(where it runs), binaries.py (what is started), pause_image.py (what holds a pod together).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from cluster.credentials import ADMIN, Credentials
from node.binaries import NodeBinaries
from node.pause_image import PAUSE_TAG, write_pause_image
from node.sandbox import GATEWAY, POD_NETWORK, SERVICE_NETWORK, Sandbox, sandbox, until

NODE = "node-1"
READY_SECONDS = 90.0
LOOK_AGAIN_SECONDS = 30
"""Of the scheduler, at pods that no event told it of; Kubernetes' own are 5 minutes."""
_ETCD = "http://127.0.0.1:2379"
_ISSUER = "https://kubernetes.default.svc"
_CONTAINERD = """
version = 3
root = "{folder}/containerd"
state = "/run/containerd-state"
[grpc]
address = "/run/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
# Nobody may lower the score below that of the process that starts containerd.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{binaries}/cni"]
conf_dir = "{folder}/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "{binaries}/runc"
"""
_CNI = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_NETWORK, "rangeStart": "10.88.0.10"}]],
                     "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}  # fmt: skip


class Node:
    """One cluster of one node; `node` makes it."""

    def __init__(self, place: Sandbox, binaries: NodeBinaries, folder: Path) -> None:
        self.sandbox = place
        self.folder = folder
        self._binaries = binaries
        self._credentials = Credentials(folder / "credentials")
        self._kubeconfig = str(self._credentials.kubeconfig(ADMIN))
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Everything, in order; the node is ready when this returns."""
        self._credentials.write(f"https://{GATEWAY}:443")
        for name, command in self._control_plane().items():
            self._start(name, command)
        until(lambda: self.kubectl("get", "--raw=/readyz", check=False).returncode == 0, READY_SECONDS)
        for name, command in self._followers().items():
            self._start(name, command)
        self._start_containerd()
        self._start_kubelet()
        until(self._is_ready, READY_SECONDS)

    def reap(self) -> None:
        """When the sandbox has ended, and all daemons with it."""
        for daemon in self._daemons:
            daemon.wait()

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """As the administrator."""
        return self._client(self._kubectl(arguments), stdin, check=check)

    def followed(self, output: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """`kubectl` that goes on until it is ended, as the administrator; what it says goes to a file."""
        with output.open("wb") as file:
            return subprocess.Popen(self.sandbox.in_network(self._kubectl(arguments)), stdout=file, stderr=file)

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As the administrator."""
        return self._client(
            [self._binaries.path("helm"), f"--kubeconfig={self._kubeconfig}", *arguments], None, check=check
        )

    def get(self, *arguments: str) -> Any:
        """`kubectl get -o json`, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def import_image(self, archive: Path) -> None:
        """Into the node's own store."""
        command = [self._binaries.path("ctr"), "--address=/run/containerd.sock", "--namespace=k8s.io"]
        done = subprocess.run(
            self.sandbox.inside([*command, "images", "import", str(archive)]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def pod_cgroup(self, pod_uid: str) -> Path:
        """The pod's own cgroup in the hierarchy that has the memory controller."""
        top = Path("/sys/fs/cgroup/memory")
        root = (top if top.exists() else Path("/sys/fs/cgroup")) / self.sandbox.cgroup.lstrip("/")
        (found,) = root.rglob(f"pod{pod_uid}")
        return found

    def logs(self, name: str) -> str:
        """The end of one daemon's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def _kubectl(self, arguments: Sequence[str]) -> list[str]:
        options = [f"--kubeconfig={self._kubeconfig}", f"--cache-dir={self.folder / 'kubectl-cache'}"]
        return [str(self._binaries.control_plane.kubectl), *options, *arguments]

    def _client(self, argv: Sequence[str], stdin: str | None, *, check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.sandbox.in_network(argv), input=stdin, capture_output=True, text=True, check=False, timeout=180
        )
        assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done

    def _is_ready(self) -> bool:
        done = self.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}")
        return done.stdout == "True"

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(self.sandbox.inside(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._daemons.append(started)

    def _control_plane(self) -> dict[str, list[str]]:
        plane, key = self._binaries.control_plane, self._credentials.service_account_key
        return {
            "etcd": [
                str(plane.etcd),
                f"--data-dir={self.folder / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls={_ETCD}",
                f"--advertise-client-urls={_ETCD}",
            ],
            "kube-apiserver": [
                str(plane.kube_apiserver),
                f"--etcd-servers={_ETCD}",
                "--secure-port=443",
                f"--advertise-address={GATEWAY}",
                f"--cert-dir={self._credentials.certificates}",
                f"--token-auth-file={self._credentials.tokens}",
                "--authorization-mode=RBAC",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                f"--service-account-issuer={_ISSUER}",
                f"--service-cluster-ip-range={SERVICE_NETWORK}",
                # By name it could not be found: nobody here resolves any.
                "--kubelet-preferred-address-types=InternalIP",
            ],
        }

    def _followers(self) -> dict[str, list[str]]:
        own = [f"--kubeconfig={self._kubeconfig}", "--bind-address=127.0.0.1"]
        return {
            "kube-controller-manager": [
                self._binaries.path("kube-controller-manager"),
                *own,
                f"--service-account-private-key-file={self._credentials.service_account_key}",
                "--use-service-account-credentials=true",
                f"--root-ca-file={self._credentials.authority}",
            ],
            "kube-scheduler": [
                self._binaries.path("kube-scheduler"),
                *own,
                f"--pod-max-in-unschedulable-pods-duration={LOOK_AGAIN_SECONDS}s",
            ],
        }

    def _start_containerd(self) -> None:
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-pods.conflist").write_text(json.dumps(_CNI))
        settings = self.folder / "containerd.toml"
        settings.write_text(_CONTAINERD.format(folder=self.folder, binaries=self._binaries.folder, pause=PAUSE_TAG))
        path = f"PATH={self._binaries.folder}:/usr/sbin:/usr/bin:/sbin:/bin"
        self._start("containerd", ["env", path, self._binaries.path("containerd"), f"--config={settings}"])
        pause = self.folder / "pause.tar"
        write_pause_image(self._binaries.folder / "pause", pause)
        ctr = self.sandbox.inside([self._binaries.path("ctr"), "--address=/run/containerd.sock", "version"])
        until(lambda: subprocess.run(ctr, capture_output=True, check=False).returncode == 0, READY_SECONDS)
        self.import_image(pause)

    def _start_kubelet(self) -> None:
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.sandbox.cgroup,
            "containerRuntimeEndpoint": "unix:///run/containerd.sock",
            "address": GATEWAY,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "failSwapOn": False,
            "protectKernelDefaults": True,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "resolvConf": "",
            "clusterDNS": [GATEWAY],
            "clusterDomain": "cluster.local",
            "localStorageCapacityIsolation": False,
            "enforceNodeAllocatable": ["pods"],
            "configMapAndSecretChangeDetectionStrategy": "Watch",
            "syncFrequency": "10s",
            "volumePluginDir": str(self.folder / "volume-plugins"),
        }
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(settings))
        command = [
            *("env", f"PATH={self._binaries.folder}:/usr/sbin:/usr/bin:/sbin:/bin", self._binaries.path("kubelet")),
            f"--config={path}",
            f"--kubeconfig={self._kubeconfig}",
            f"--hostname-override={NODE}",
            f"--node-ip={GATEWAY}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-certificates'}",
        ]
        self._start("kubelet", command)


@contextlib.contextmanager
def node(binaries: NodeBinaries, folder: Path) -> Generator[Node, None, None]:
    """A running one."""
    with contextlib.ExitStack() as after, sandbox(folder) as place:
        started = Node(place, binaries, folder)
        after.callback(started.reap)
        started.start()
        yield started
