"""Real memory cgroups for tests: made with a limit, filled by starting processes inside, always removed.

Works on the v1 hierarchy at /sys/fs/cgroup/memory, as root. Elsewhere the test is skipped with the reason, or
fails when REQUIRE_CGROUP=1 says that this machine must be able to.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

HIERARCHY = Path("/sys/fs/cgroup/memory")
_REMOVAL_SECONDS = 10.0  # killed members leave the cgroup only when the kernel has taken their memory down
_numbers = itertools.count()


class MemoryCgroup:
    """One cgroup: `path` is its directory. Figures are in bytes and counts, straight from the kernel's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started: list[subprocess.Popen[Any]] = []

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

    def set_limit(self, limit_bytes: int) -> None:
        """Changes the limit live; the kernel refuses one under the usage with EBUSY."""
        self._write("memory.limit_in_bytes", str(limit_bytes))

    def oom_kills(self) -> int:
        """How many members the kernel killed for want of memory."""
        lines = (self.path / "memory.oom_control").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])

    def peak_usage(self) -> int:
        """The largest usage so far in bytes, page cache included."""
        return int((self.path / "memory.max_usage_in_bytes").read_text())

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
        self._write("memory.force_empty", "0")  # else the cache keeps the removed cgroup alive in the kernel
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
def memory_cgroup(limit_bytes: int) -> Generator[MemoryCgroup, None, None]:
    """A new cgroup with that limit; removed at the end with all its members, also when the test fails."""
    _require_hierarchy()
    path = HIERARCHY / f"membudget-test-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    cgroup = MemoryCgroup(path)
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


def _require_hierarchy() -> None:
    usable = os.geteuid() == 0 and (HIERARCHY / "cgroup.procs").exists() and os.access(HIERARCHY, os.W_OK)
    require(usable, f"no writable v1 memory hierarchy at {HIERARCHY}, or not root")
