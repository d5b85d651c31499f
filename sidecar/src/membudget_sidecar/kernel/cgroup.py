"""The memory cgroup of a process: where it is, and its figures.

Covers finding it on version 1, version 2 and hybrid hosts, from inside the container, from a sibling
container, and from the host. Does not cover the figures' names (`cgroup_v1`, `cgroup_v2`) nor what they mean
for the budget (`sample`). Without a cgroup of its own a process has no figures here, only a reason: the
root's figures are those of the whole host.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from membudget_sidecar.kernel import cgroup_v1, cgroup_v2
from membudget_sidecar.kernel.cgroup_reading import CgroupReading
from membudget_sidecar.kernel.kernel_file import read_text
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent, Reading, SignalReading

# The kernel puts this file into the root of a v1 hierarchy only (CFTYPE_ONLY_ON_ROOT): a container's mount
# looks like a root, and has none.
_ONLY_ON_V1_ROOT = "release_agent"


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """One version of the memory controller: how it is read, and where below /sys/fs/cgroup it is mounted."""

    read: Callable[[Sequence[str]], CgroupReading]
    read_unreclaimable: Callable[[str], SignalReading]
    read_working_set: Callable[[str], SignalReading]
    read_limit: Callable[[Sequence[str]], Reading]
    marker: str
    limit: str
    mounts: tuple[str, ...]


_V1 = _Hierarchy(
    cgroup_v1.read_v1,
    cgroup_v1.read_v1_unreclaimable,
    cgroup_v1.read_v1_working_set,
    cgroup_v1.read_v1_limit,
    cgroup_v1.MARKER,
    cgroup_v1.LIMIT,
    ("/memory",),
)
# On a hybrid host the unified hierarchy stands beside those of v1, and may hold the memory controller.
_V2 = _Hierarchy(
    cgroup_v2.read_v2,
    cgroup_v2.read_v2_unreclaimable,
    cgroup_v2.read_v2_working_set,
    cgroup_v2.read_v2_limit,
    cgroup_v2.MARKER,
    cgroup_v2.LIMIT,
    ("", "/unified"),
)


@dataclass(frozen=True, slots=True)
class _Membership:
    """The line of /proc/<pid>/cgroup that counts for memory."""

    hierarchy: _Hierarchy
    path: str


@dataclass(frozen=True, slots=True)
class MemoryCgroup:
    """A cgroup that was found; `directories` are its own and those of its ancestors that may have a limit.

    One that is `shared` with the sidecar holds other processes too: its limit is the engine's, its figures are not.
    """

    process: Process
    directories: tuple[str, ...]
    _hierarchy: _Hierarchy
    shared: bool

    def read(self) -> CgroupReading | Absent:
        """The figures of now; absent when the process ended or its pid is another's, as the path may lead there."""
        reading = self._hierarchy.read(self.directories)
        return self.process.absence() or reading

    def read_unreclaimable(self) -> SignalReading:
        """What `read` says of that one figure, for a third of the time."""
        return self._checked(self._hierarchy.read_unreclaimable(self.directories[0]))

    def read_working_set(self) -> SignalReading:
        """What `read` says of that one figure, for a third of the time."""
        return self._checked(self._hierarchy.read_working_set(self.directories[0]))

    def read_limit(self) -> Reading:
        """What `read` says of that one figure; the limit of a cgroup that is gone is absent."""
        limit = self._hierarchy.read_limit(self.directories)
        return self.process.absence() or limit

    @property
    def pressure_file(self) -> str:
        """Where version 2 tells of stalls of this cgroup; version 1 has no such file."""
        return f"{self.directories[0]}/memory.pressure"

    def _checked(self, reading: SignalReading) -> SignalReading:
        gone = self.process.absence()
        return reading if gone is None else SignalReading(gone, reading.source)


def find_memory_cgroup(process: Process, cgroup_root: Path) -> MemoryCgroup | Absent:
    """The memory cgroup of the process; absent with a reason when it has none of its own or none is readable.

    The process' own view (`/proc/<pid>/root/sys/fs/cgroup`) comes before ours (`cgroup_root`). A path that a
    view does not show belongs to a container with a mount of its own, whose root then is the cgroup. That
    holds in our view only for a process of our own cgroup: for another one it would give the sidecar's
    figures for the engine's.
    """
    membership = _membership(process.proc, str(process.pid))
    if isinstance(membership, Absent):
        return membership
    inside_ours = membership == _membership(process.proc, "self")
    views = ((f"{process.proc}/{process.pid}/root/sys/fs/cgroup", True), (str(cgroup_root), inside_ours))
    for view, root_is_ours in views:
        for mount in membership.hierarchy.mounts:
            directories = _directories(view + mount, membership, root_is_ours)
            if directories:
                return MemoryCgroup(process, directories, membership.hierarchy, shared=inside_ours)
    return _not_found(process, membership, cgroup_root)


def _membership(proc: Path, pid: str) -> _Membership | Absent:
    """v1 where memory is a controller of v1, else the unified hierarchy. Lines: `id:controllers:path`."""
    source = f"{proc}/{pid}/cgroup"
    text = read_text(source)
    if isinstance(text, Absent):
        return text
    lines = [line.split(":", 2) for line in text.split("\n") if line.count(":") > 1]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return _Membership(_V1, path)
    for identifier, controllers, path in lines:
        if identifier == "0" and not controllers:
            return _Membership(_V2, path)
    return Absent(f"{source}: no memory controller")


def _directories(mount: str, membership: _Membership, root_is_ours: bool) -> tuple[str, ...]:
    """The cgroup's directory and its ancestors up to the mount; empty when this mount does not show it."""
    hierarchy = membership.hierarchy
    names = [name for name in membership.path.split("/") if name]
    # `/../` leads out of our cgroup namespace: as a path it would lead out of the mount.
    if ".." not in names and _has(mount, *names, hierarchy.marker):
        chain = ["/".join((mount, *names[:depth])) for depth in range(len(names), -1, -1)]
    elif root_is_ours and _has(mount, hierarchy.marker):
        chain = [mount]
    else:
        return ()
    if chain == [mount] and _has(mount, _ONLY_ON_V1_ROOT):
        return ()
    own, *ancestors = chain
    # The root of the host has no limit on v2, and no file for one.
    return (own, *(ancestor for ancestor in ancestors if _has(ancestor, hierarchy.limit)))


def _has(*parts: str) -> bool:
    return os.path.lexists("/".join(parts))


def _not_found(process: Process, membership: _Membership, cgroup_root: Path) -> Absent:
    if membership.path == "/":
        return Absent(f"the process with pid {process.pid} is in the root cgroup and has none of its own")
    own_view = f"{process.proc}/{process.pid}/root/sys/fs/cgroup"
    return Absent(
        f"no {membership.hierarchy.marker} of {membership.path} under {own_view}{_denial(own_view)}"
        f" nor under {cgroup_root}"
    )


def _denial(directory: str) -> str:
    """What an unprivileged sidecar meets when the engine runs as another user; the remedy is one uid for both."""
    try:
        os.lstat(directory)
    except PermissionError as error:
        return f" ({error.strerror})"
    except OSError:
        return ""
    return ""
