"""A memory limit under the usage of a process full of cache: as it is, and with the bytes given back first.

On cgroup v2 the kernel kills for it, which is what the emulated machine shows; on v1 it refuses. With shrink first both
take the limit and the process lives. The order on a real kubelet is in tests/node/test_shrink_first.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memory_cgroup import MemoryCgroup, memory_cgroup

pytestmark = pytest.mark.cgroup

MIB = 1 << 20
PROCESS = Path(__file__).with_name("cache_process.py")
LARGE, SMALL = 256 * MIB, 96 * MIB
TOTAL, SMALLER_TOTAL = 192 * MIB, 72 * MIB
"""75 % of each."""
END_SECONDS = 60.0
LIVES_SECONDS = 2.0


@contextmanager
def full_of_cache(folder: Path) -> Generator[tuple[MemoryCgroup, subprocess.Popen[str]]]:
    """A process in a cgroup of its own, with more bytes that cannot be reclaimed than the lower limit."""
    with memory_cgroup(LARGE) as cgroup:
        environment = {**os.environ, "MEMBUDGET_TOTAL": str(TOTAL)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = cgroup.run([sys.executable, str(PROCESS), str(folder)], env=environment, **pipes)
        assert process.stdout is not None
        assert "full\n" == process.stdout.readline()
        assert used(cgroup) > SMALL + 8 * MIB
        yield cgroup, process


def used(cgroup: MemoryCgroup) -> int:
    """What the kernel cannot take back, by its own figures."""
    figures = cgroup.figures("memory.stat")
    return figures["anon"] + figures["shmem"] if cgroup.version == "v2" else figures["total_rss"]


def test_a_limit_under_the_usage_kills_on_v2_and_is_refused_on_v1(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """Goal 1, the other side: what a resize without shrink first is to the kernel."""
    with full_of_cache(tmp_path) as (cgroup, process):
        before = used(cgroup)
        try:
            cgroup.set_limit(SMALL)
        except OSError as error:
            outcome = os.strerror(error.errno or 0)
        else:
            process.wait(END_SECONDS)
            outcome = f"{signal.Signals(-process.returncode).name}, oom_kill {cgroup.oom_kills()}"
        publish(
            f"cgroup {cgroup.version}: limit {LARGE // MIB} -> {SMALL // MIB} MiB under {before // MIB} MiB in use: "
            f"{outcome}"
        )
        expected = {"v2": "SIGKILL, oom_kill 1", "v1": "Device or resource busy"}
        assert expected[cgroup.version] == outcome


def test_with_the_bytes_given_back_first_the_same_process_lives(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """Goal 1: smaller budget, measured bytes, lower limit; it goes on offering values and stays below."""
    with full_of_cache(tmp_path) as (cgroup, process):
        assert process.stdin is not None
        assert process.stdout is not None
        before, started = used(cgroup), time.monotonic()
        process.stdin.write(f"{SMALLER_TOTAL}\n")
        process.stdin.flush()
        while used(cgroup) > SMALLER_TOTAL:
            assert time.monotonic() - started < END_SECONDS, f"{used(cgroup)} bytes are still in use"
            time.sleep(0.01)
        took = time.monotonic() - started
        cgroup.set_limit(SMALL)
        time.sleep(LIVES_SECONDS)
        publish(
            f"cgroup {cgroup.version}: shrink first, {before // MIB} -> {used(cgroup) // MIB} MiB in {took:.2f} s, "
            f"then the limit {LARGE // MIB} -> {SMALL // MIB} MiB; oom_kill {cgroup.oom_kills()}"
        )
        assert (None, 0) == (process.poll(), cgroup.oom_kills())
        assert used(cgroup) <= SMALLER_TOTAL
