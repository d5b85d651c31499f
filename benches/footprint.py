"""What engine and sidecar cost when nothing happens: resident memory and processor time, read from outside.

No peer: the figures stand beside the goals. For the engine: 75 MB. For the sidecar, as a process of its own beside a
runtime, after 24,000 samples and 300 scrapes: 30 MB resident, 18 MB private, 0.1 % of a core at the interval of 10 s,
and the same inside a memory cgroup of 48 MB. `footprint.py sidecar` measures the sidecar alone.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import pytest

from measuring import MIB, private_bytes, resident_bytes, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from membudget_cli.demo.stack import build_index, running_stack, temporary_folders
from memory_cgroup import memory_cgroup

STACK_SECONDS: Final = 20
IDLE_SECONDS: Final = 120
SAMPLES: Final = 24_000
SCRAPES: Final = 300
LIMIT_BYTES: Final = 48 * MIB
START_SECONDS: Final = 600.0

POLICY = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {name: idle}
spec: {budget: {total: 150Mi, signal: ResidentSetSize}}
"""

Launch = Callable[..., "subprocess.Popen[Any]"]
Row = tuple[str, float, float, float]


def _cpu_seconds(pid: int) -> float:
    """Of all threads, in nanoseconds as the scheduler counts them: 0.1 % of a minute is six ticks of a clock."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _idle_share(pids: dict[str, int], seconds: int) -> dict[str, float]:
    before = {name: _cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    return {name: 100 * (_cpu_seconds(pid) - before[name]) / seconds for name, pid in pids.items()}


def _stack_rows() -> list[Row]:
    with temporary_folders() as folders:
        build_index(folders, ["stdlib"])
        folders.policy.write_text(POLICY)
        with running_stack(folders) as stack:
            pids = {"engine": stack.engine.pid, "sidecar": stack.sidecar.pid}
            time.sleep(3)
            shares = _idle_share(pids, STACK_SECONDS)
            return [_row(name, pid, shares[name]) for name, pid in pids.items()]


def _row(name: str, pid: int, share: float) -> Row:
    return name, resident_bytes(pid) / MIB, private_bytes(pid) / MIB, share


def _scrape(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()
    finally:
        connection.close()


@contextlib.contextmanager
def _worked_sidecar(launch: Launch) -> Generator[tuple[int, int]]:
    """Pid and port of a sidecar that has taken its samples, beside a runtime."""
    with temporary_folders() as folders:
        run = folders.policy.parent
        (run / "policy.yaml").write_text(POLICY)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        program = [sys.executable, str(Path(__file__).with_name("worked_sidecar.py"))]
        runtime = subprocess.Popen([*program, "runtime", str(run)])
        sidecar = launch([*program, "sidecar", str(run), str(port), str(SAMPLES)])
        try:
            _until_it_serves(port, sidecar)
            yield sidecar.pid, port
        finally:
            for process in (sidecar, runtime):
                process.terminate()
                process.wait(10)


def _until_it_serves(port: int, sidecar: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and sidecar.poll() is None:
        try:
            _scrape(port)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the sidecar did not come to serve")


def _sidecar_row(name: str, launch: Launch) -> Row:
    with _worked_sidecar(launch) as (pid, port):
        text = b""
        for _ in range(SCRAPES):
            text = _scrape(port)
        assert b"membudget_engine_up 1.0" in text, "the sidecar has no engine to look at"
        share = _idle_share({name: pid}, IDLE_SECONDS)[name]
        return _row(name, pid, share)


def _sidecar_rows() -> list[Row]:
    rows = [_sidecar_row("sidecar", subprocess.Popen)]
    try:
        with memory_cgroup(LIMIT_BYTES) as cgroup:
            rows.append(_sidecar_row(f"sidecar in {LIMIT_BYTES // MIB} MB", cgroup.run))
            print(f"\npeak of the cgroup {cgroup.peak_usage() / MIB:.1f} MiB, OOM kills {cgroup.oom_kills()}")
    except pytest.skip.Exception as reason:
        print(f"\nnot run inside a memory cgroup: {reason}")
    return rows


if __name__ == "__main__":
    columns = ("process", "resident MiB", "private MiB", "% of a core")
    table(
        f"Sidecar after {SAMPLES} samples and {SCRAPES} scrapes, then idle for {IDLE_SECONDS} s",
        columns,
        _sidecar_rows(),
    )
    if sys.argv[1:] != ["sidecar"]:
        table(f"Idle for {STACK_SECONDS} s, corpus open", columns, _stack_rows())
