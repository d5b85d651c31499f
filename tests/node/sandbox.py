"""Namespaces for one node: network, processes and mounts, and a cgroup of its own; nothing of it is left behind.

Covers: making and removing them, commands inside. What is mounted is sandbox_init.sh's; what runs inside is node.py's.
The machine's files, kernel settings, addresses and other cgroups stay as they are.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from cluster.network_namespace import NetworkNamespace, network_namespace

INIT = Path(__file__).with_name("sandbox_init.sh")
CGROUPS = Path("/sys/fs/cgroup")
GATEWAY = "10.88.0.1"
POD_NETWORK = "10.88.0.0/24"
SERVICE_NETWORK = "10.245.0.0/24"
API_SERVICE = "10.245.0.1"
"""The first of the service network: where pods find the API server. There is no kube-proxy; the address is local."""
_NETWORK = (
    "link add cni0 type bridge",
    f"addr add {GATEWAY}/24 dev cni0",
    "link set cni0 up",
    "route add default dev cni0",
    f"addr add {API_SERVICE}/32 dev lo",
)
_PREFIX = "membudget-node"
_SECONDS = 20.0
_numbers = itertools.count()


class Sandbox:
    """One node's; `sandbox` makes it."""

    def __init__(self, network: NetworkNamespace, init: int, cgroup: str) -> None:
        self.network = network
        self.cgroup = cgroup
        """The parent of all pods' cgroups, as a path from the root of each hierarchy."""
        self._init = init

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in all three namespaces; it ends at the latest with the sandbox."""
        return ["nsenter", f"--target={self._init}", "--mount", "--pid", "--net", "--", *argv]

    def in_network(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in the network alone: what a client does."""
        return self.network.inside(argv)


@contextlib.contextmanager
def sandbox(folder: Path) -> Generator[Sandbox, None, None]:
    """A new one; `folder` takes what is written inside. At the end all processes inside are killed."""
    with network_namespace() as network, _cgroup() as cgroup:
        for change in _NETWORK:
            subprocess.run(["ip", "-n", network.name, *change.split()], check=True)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", str(INIT), str(folder)]
        with (folder / "sandbox.log").open("ab") as log:
            outer = subprocess.Popen(network.inside(unshare), stdout=log, stderr=log)
        try:
            until(lambda: (folder / "ready").exists() or outer.poll() is not None)
            assert outer.poll() is None, (folder / "sandbox.log").read_text()
            yield Sandbox(network, _only_child(outer.pid), cgroup)
        finally:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                os.kill(_only_child(outer.pid), signal.SIGKILL)
            outer.wait()


def until(condition: object, seconds: float = _SECONDS) -> None:
    """Wait for a condition, at most that long."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@contextlib.contextmanager
def _cgroup() -> Generator[str, None, None]:
    """A cgroup of the same name in every hierarchy, removed with all that pods made in it."""
    for stale in _hierarchies(f"{_PREFIX}-*"):
        if not Path(f"/proc/{stale.name.split('-')[2]}").exists():
            _remove(stale)
    name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
    for hierarchy in _hierarchies():
        path = hierarchy / name
        path.mkdir(exist_ok=True)
        for inherited in ("cpuset.cpus", "cpuset.mems"):  # v1: empty at first, and then nothing can run inside
            if (path / inherited).exists() and (hierarchy / inherited).exists():
                (path / inherited).write_text((hierarchy / inherited).read_text())
    try:
        yield f"/{name}"
    finally:
        for hierarchy in _hierarchies():
            _remove(hierarchy / name)


def _hierarchies(pattern: str = "") -> list[Path]:
    """The root of each mounted hierarchy once; with a pattern, the cgroups in them that it names."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    roots = sorted({Path(fields[1]).resolve() for fields in lines if fields[2] in {"cgroup", "cgroup2"}})
    return [found for root in roots for found in root.glob(pattern)] if pattern else roots


def _remove(top: Path) -> None:
    """The kernel lets a cgroup go a moment after its last process."""
    deadline = time.monotonic() + _SECONDS
    while top.exists():
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{top} cannot be removed")
        time.sleep(0.01)
