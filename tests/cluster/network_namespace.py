"""A network namespace of this test process: every pod address is local in it, and nothing of it is left behind.

Covers its name, its making and removal, commands and connections inside, and the namespaces that test processes left
behind when they were killed. What runs inside is control_plane.py and whatever a test starts with `inside`.

Inside, 10.244.0.0/16 is local (AnyIP): a server may bind any pod address, and one that binds 0.0.0.0 answers at all
of them. From outside none of that can be reached.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.binaries import require

POD_NETWORK = "10.244.0.0/16"
_FOLDER = Path("/run/netns")
_PREFIX = "membudget"
_REMOVAL_SECONDS = 10.0
_BACKLOG = 1024  # a controller dials many pods at once, and one listener may stand for all of them
_CLONE_NEWNET = 0x40000000
_START_TIME_FIELD = 22  # of /proc/<pid>/stat, counted from 1: tells a process from a later one with its pid
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class NetworkNamespace:
    """One namespace by its name; `network_namespace` makes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = _FOLDER / name

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside, and kills it when the thread that started it ends.

        `nsenter`, not `ip netns exec`: that hides /sys/fs/cgroup. Both programs become the next, so the pid is argv's.
        """
        return ["nsenter", f"--net={self.path}", "setpriv", "--pdeathsig", "KILL", *argv]

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """A connection from inside: a socket stays where the thread was that made it, and this thread then ends."""
        with ThreadPoolExecutor(max_workers=1) as entering:
            return entering.submit(self._enter_and_connect, (host, port), timeout).result()

    def listen(self, host: str, port: int) -> socket.socket:
        """A listener inside, served from here: like `connect`, it stays where it was made."""
        with ThreadPoolExecutor(max_workers=1) as entering:
            return entering.submit(self._enter_and_listen, (host, port)).result()

    def members(self) -> list[int]:
        """The pids of the processes inside."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(pid) for pid in listed.stdout.split()]

    def remove(self) -> None:
        """Kills what is inside and removes the namespace; someone else may have done so already."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        while self.path.exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                for pid in self.members():
                    _kill(pid)
                if not self.members():
                    subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=True)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path} cannot be removed; inside are {self.members()}")

    def _enter_and_connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self._enter()
        return socket.create_connection(address, timeout)

    def _enter_and_listen(self, address: tuple[str, int]) -> socket.socket:
        self._enter()
        return socket.create_server(address, backlog=_BACKLOG)

    def _enter(self) -> None:
        """This thread, for good."""
        with self.path.open() as handle:
            if _libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.path}")


@contextlib.contextmanager
def network_namespace() -> Generator[NetworkNamespace, None, None]:
    """A new one; removed at the end with everything inside. Those of dead test processes go first."""
    remove_stale()
    namespace = NetworkNamespace(f"{_PREFIX}-{os.getpid()}-{_start_time(os.getpid())}-{next(_numbers)}")
    added = subprocess.run(["ip", "netns", "add", namespace.name], capture_output=True, text=True, check=False)
    require(added.returncode == 0, f"`ip netns add` is refused here: {added.stderr.strip()}")
    try:
        for change in ("link set lo up", f"route add local {POD_NETWORK} dev lo"):
            subprocess.run(["ip", "-n", namespace.name, *change.split()], check=True)
        yield namespace
    finally:
        namespace.remove()


def remove_stale() -> None:
    """Removes the namespaces whose test process is gone, with what still runs in them."""
    for path in _FOLDER.glob(f"{_PREFIX}-*-*-*"):
        _, pid, start_time, _ = path.name.split("-")
        if _start_time(int(pid)) != int(start_time):
            NetworkNamespace(path.name).remove()


def _start_time(pid: int) -> int | None:
    """In clock ticks since boot; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = text.rpartition(")")[2].split()  # the name may hold anything; what follows starts with field 3
    return int(after_name[_START_TIME_FIELD - 3])


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
