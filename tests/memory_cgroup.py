"""Real memory cgroups for tests: made with a limit, filled by starting processes inside, always removed.

Works as root on whichever version of the hierarchy has the memory controller: v1 at /sys/fs/cgroup/memory, v2 at
/sys/fs/cgroup or, on a hybrid host, at /sys/fs/cgroup/unified. Elsewhere the test is skipped with the reason, or
fails when REQUIRE_CGROUP=1 says that this machine must be able to.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

_ROOT = Path("/sys/fs/cgroup")
_REMOVAL_SECONDS = 10.0  # killed members leave the cgroup only when the kernel has taken their memory down
_numbers = itertools.count()


@dataclass(frozen=True)
class Hierarchy:
    """One version of the memory controller, and what its files are called."""

    version: Literal["v1", "v2"]
    limit: str
    no_limit: str
    events: str
    peak: str
    give_back: str  # taking a 0, it drops all page cache of a cgroup without members

    def children(self, directory: Path) -> None:
        """Lets cgroups made under the directory have the memory controller; v1 asks for nothing."""
        if self.version == "v2":
            (directory / "cgroup.subtree_control").write_text("+memory")


_V1 = Hierarchy(
    "v1", "memory.limit_in_bytes", "-1", "memory.oom_control", "memory.max_usage_in_bytes", "memory.force_empty"
)
_V2 = Hierarchy("v2", "memory.max", "max", "memory.events", "memory.peak", "memory.max")


class MemoryCgroup:
    """One cgroup: `path` is its directory. Figures are in bytes and counts, straight from the kernel's files."""

    def __init__(self, path: Path, hierarchy: Hierarchy) -> None:
        self.path = path
        self.hierarchy = hierarchy
        self._started: list[subprocess.Popen[Any]] = []

    @property
    def version(self) -> Literal["v1", "v2"]:
        """Of the hierarchy it is in."""
        return self.hierarchy.version

    def run(self, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Starts the command; it is a member from its exec on, so all of its memory is charged here.

        A shell moves itself in and becomes the command, so the result's pid is the command's. Returns once it is
        inside, or has ended. Keywords go to Popen.
        """
        enter = 'echo $$ > "$0" && exec "$@"'
        process = subprocess.Popen(["/bin/sh", "-c", enter, str(self.path / "cgroup.procs"), *argv], **popen)
        self._started.append(process)
        while process.poll() is None and str(process.pid) not in self.members():
            time.sleep(0.001)
        return process

    def members(self) -> list[str]:
        """The pids inside, as the kernel writes them."""
        return (self.path / "cgroup.procs").read_text().split()

    def set_limit(self, limit_bytes: int | None) -> None:
        """Changes the limit live, None for none; under what cannot be reclaimed v1 refuses with EBUSY, v2 kills."""
        self._write(self.hierarchy.limit, self.hierarchy.no_limit if limit_bytes is None else str(limit_bytes))

    def oom_kills(self) -> int:
        """How many members the kernel killed for want of memory."""
        return self.figures(self.hierarchy.events)["oom_kill"]

    def figures(self, name: str) -> dict[str, int]:
        """A file of `name number` lines, as the kernel has it at this moment."""
        lines = (line.split() for line in (self.path / name).read_text().splitlines())
        return {key: int(value) for key, value in lines}

    def peak_usage(self) -> int:
        """The largest usage so far in bytes, page cache included."""
        return int((self.path / self.hierarchy.peak).read_text())

    def remove(self) -> None:
        """Kills all members, reaps those started here, gives the page cache back and removes the directory."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        while members := self.members():
            for member in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(member), signal.SIGKILL)
            self._reap()
            if time.monotonic() > deadline:
                raise TimeoutError(f"members of {self.path} outlived SIGKILL by {_REMOVAL_SECONDS} s: {members}")
            time.sleep(0.01)
        self._reap()
        self._write(self.hierarchy.give_back, "0")  # else the cache keeps the removed cgroup alive in the kernel
        self._rmdir(deadline)

    def _write(self, name: str, value: str) -> None:
        (self.path / name).write_text(value)

    def _reap(self) -> None:
        for process in self._started:
            # One that the shell did not get into the cgroup is no member and must not be waited for.
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _rmdir(self, deadline: float) -> None:
        while True:
            try:
                self.path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


@contextlib.contextmanager
def memory_cgroup(limit_bytes: int | None, parent: MemoryCgroup | None = None) -> Generator[MemoryCgroup, None, None]:
    """A new cgroup with that limit, or None for none; removed at the end with all its members, also on failure.

    It is made inside `parent`, which then has no processes of its own: v2 allows them only in leaves.
    """
    top, hierarchy = (parent.path, parent.hierarchy) if parent else _hierarchy()
    if parent:
        hierarchy.children(top)
    path = top / f"membudget-test-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    cgroup = MemoryCgroup(path, hierarchy)
    try:
        cgroup.set_limit(limit_bytes)
        yield cgroup
    finally:
        cgroup.remove()


def require(condition: bool, need: str) -> None:
    """Skips the test with the reason when the machine lacks what it needs; fails it under REQUIRE_CGROUP=1."""
    if condition:
        return
    if os.environ.get("REQUIRE_CGROUP") == "1":
        pytest.fail(f"REQUIRE_CGROUP=1, but {need}")
    pytest.skip(need)


def _hierarchy() -> tuple[Path, Hierarchy]:
    """Where the memory controller is: v1 where it is mounted, else a unified hierarchy that offers it."""
    found = _ROOT / "memory", _V1
    if not (found[0] / "cgroup.procs").exists():
        unified = (_ROOT, _ROOT / "unified")
        offering = [top for top in unified if "memory" in _text(top / "cgroup.controllers").split()]
        found = (offering or [_ROOT])[0], _V2
    usable = os.geteuid() == 0 and (found[0] / "cgroup.procs").exists() and os.access(found[0], os.W_OK)
    require(usable, f"no writable hierarchy with the memory controller under {_ROOT}, or not root")
    try:
        found[1].children(found[0])
    except OSError as error:  # v2 in a container: only the root of the host may have both processes and children
        require(condition=False, need=f"{found[0]} gives its children no memory controller: {error.strerror}")
    return found


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
