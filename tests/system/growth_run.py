"""One engine with full caches in a cgroup of 512 MiB, a real sidecar beside it, and unmanaged memory that grows.

The signal is read from the cgroup's files every few milliseconds with code of its own, so that it can testify against
what the sidecar says.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGTERM
from typing import Any, Self

from memory_cgroup import MemoryCgroup, memory_cgroup
from sidecar.fake_engine import eventually
from sidecar.sidecar_process import Started

MIB = 1 << 20
LIMIT = 512 * MIB
GROWTH = 256 * MIB
RATE = 64 * MIB
CACHED = 300 * MIB
CACHE_CEILING = 340 * MIB
SOFT, HARD, EMERGENCY = 80, 93, 98
SAMPLE_PAUSE_SECONDS = 0.003
PROGRAM = Path(__file__).with_name("growing_process.py")
_SUM = {
    "v1": ({"total_rss": 1, "total_shmem": 1}, "memory.kmem.usage_in_bytes"),
    "v2": ({"anon": 1, "shmem": 1, "kernel": 1, "sock": 1, "slab_reclaimable": -1}, None),
}


class SignalSampler:
    """Unreclaimable bytes of a cgroup with their times, read in a thread inside the block."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self.samples: list[tuple[float, int]] = []
        self._cgroup = cgroup
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def read(self) -> int:
        """The signal at this moment."""
        terms, kernel = _SUM[self._cgroup.version]
        stat = self._cgroup.figures("memory.stat")
        held = sum(sign * stat[name] for name, sign in terms.items())
        return held + (int((self._cgroup.path / kernel).read_text()) if kernel else 0)

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_PAUSE_SECONDS):
            self.samples.append((time.monotonic(), self.read()))

    def stays_over(self, entry: int) -> list[float]:
        """Seconds from each crossing of the entry to the first sample under it again; inf for one that lasts."""
        stays: list[float] = []
        crossed: float | None = None
        for at, held in self.samples:
            if crossed is None and held >= entry:
                crossed = at
            elif crossed is not None and held < entry:
                stays.append(at - crossed)
                crossed = None
        return stays if crossed is None else [*stays, float("inf")]


@dataclass
class Grown:
    """What came of one growth."""

    oom_kills: int
    owned_bytes: int
    bytes_per_second: float
    peak_bytes: int
    over_soft: list[float] = field(default_factory=list[float])
    over_emergency: list[float] = field(default_factory=list[float])
    actions: list[str] = field(default_factory=list[str])
    """What the sidecar did, for people who read a run that was slow."""


class Stack:
    """Engine in its cgroup and sidecar outside of it, caches full."""

    def __init__(self, cgroup: MemoryCgroup, folder: Path, where: str, rate: int) -> None:
        self.cgroup = cgroup
        argv = [sys.executable, str(PROGRAM), str(folder), where, str(GROWTH), str(rate)]
        self.engine = cgroup.run(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer()["pid"] == self.engine.pid
        (folder / "policy.yaml").write_text(_policy())
        self.sidecar = Started(folder, "--policy", str(folder / "policy.yaml"))

    def fill(self) -> None:
        """Fill the caches, once the engine holds the policy's ceilings."""
        eventually(self._is_held, "the engine holds the policy", 30.0)
        assert self.ask(f"fill {CACHED}")["owned"] >= CACHED

    def ask(self, step: str) -> dict[str, Any]:
        """Have the engine take a step; empty when it died of it."""
        assert self.engine.stdin is not None
        self.engine.stdin.write(step + "\n")
        self.engine.stdin.flush()
        return self._answer()

    def grow(self) -> Grown:
        """Grow to the end, or to the engine's."""
        with SignalSampler(self.cgroup) as sampler:
            answer = self.ask("grow")
        return Grown(
            oom_kills=self.cgroup.oom_kills(),
            owned_bytes=int(answer.get("owned", 0)),
            bytes_per_second=GROWTH / answer["seconds"] if answer else 0.0,
            peak_bytes=max(held for _, held in sampler.samples),
            over_soft=sampler.stays_over(LIMIT * SOFT // 100),
            over_emergency=sampler.stays_over(LIMIT * EMERGENCY // 100),
        )

    def actions(self) -> list[str]:
        """What the sidecar did; it must not stand still."""
        return [_told(record) for record in self.sidecar.ask("GET", "/v1/actions")[1]["actions"]]

    def close(self) -> None:
        """End the sidecar; the engine ends with its cgroup."""
        self.sidecar.process.send_signal(SIGCONT)
        code, log = self.sidecar.end(SIGTERM)
        assert (code, "Traceback" in log) == (0, False), log

    def _is_held(self) -> bool:
        parts = self.sidecar.status().get("components", ())
        return any(part["budgetBytes"] == CACHE_CEILING for part in parts)

    def _answer(self) -> dict[str, Any]:
        assert self.engine.stdout is not None
        return json.loads(self.engine.stdout.readline() or "{}")


@contextlib.contextmanager
def growth_stack(folder: Path, where: str, rate: int = RATE) -> Generator[Stack]:
    """A stack in a fresh cgroup; everything is ended with the block."""
    folder.mkdir(exist_ok=True)
    with memory_cgroup(LIMIT) as cgroup:
        stack = Stack(cgroup, folder, where, rate)
        try:
            stack.fill()
            yield stack
        finally:
            stack.close()


def _told(record: dict[str, Any]) -> str:
    if record["startedAt"] is None or record["finishedAt"] is None:
        return f"{record['kind']} {record['status']}"  # refused, or still under way
    waited, took = record["startedAt"] - record["queuedAt"], record["finishedAt"] - record["startedAt"]
    return f"{record['kind']} {record['status']} after {1000 * waited:.0f} ms, took {1000 * took:.0f} ms"


def _policy() -> str:
    budget = {"signal": "Unreclaimable", "total": "100%", "components": {"semanticCache": f"{CACHE_CEILING}"}}
    document = {
        "apiVersion": "membudget.dev/v1alpha1",
        "kind": "MemoryPolicy",
        "metadata": {"name": "growth"},
        "spec": {"budget": budget},
    }
    return json.dumps(document)
