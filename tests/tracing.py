"""The tracer by which a system call of a test's process is read, fails, waits or brings a signal."""

import shutil

from memory_cgroup import require


def required_strace() -> str:
    """Where strace is. Skips the test with the reason where it is missing; fails it under REQUIRE_CGROUP=1."""
    tracer = shutil.which("strace")
    require(tracer is not None, "strace is missing. On Debian: apt-get install strace")
    return str(tracer)
