"""Where a profile is measured: processors, memory, limit, kernel, Python, and how busy it was.

Covers: reading it. Does not cover what is measured there.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from membudget_cli.profile.results import Machine
from membudget_engine.settings import processors
from membudget_sidecar.kernel.cgroup import find_memory_cgroup
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent


def machine(load_before: float) -> Machine:
    """This one, now; `load_before` is the load average when the measurement began."""
    return Machine(
        processors=processors(),
        memory_bytes=psutil.virtual_memory().total,
        limit_bytes=_limit_bytes(Path("/proc"), Path("/sys/fs/cgroup"), os.getpid()),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libc=" ".join(platform.libc_ver()),
        version=version("membudget-cli"),
        load_before=load_before,
        load_after=load_average(),
    )


def load_average() -> float:
    """Over the last minute."""
    return round(os.getloadavg()[0], 1)


def _limit_bytes(proc: Path, cgroup_root: Path, pid: int) -> int | None:
    cgroup = find_memory_cgroup(Process(proc, pid), cgroup_root)
    if isinstance(cgroup, Absent):
        return None
    limit = cgroup.read_limit()
    return None if isinstance(limit, Absent) else limit
