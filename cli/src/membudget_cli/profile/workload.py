"""The whole workload: the engine under its budget with a sidecar, and the naive build, asked the same at once.

Covers: starting both, the phases, readings from outside. Does not cover a turn of an agent (`asked`) nor the naive
build (`measured.naive_engine`). First fewer questions than the caches hold answers to, then many more, as fast as the
machine answers; the last of those with pauses, so that times are of a query and not of a queue (docs/decisions/0029).
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from membudget_cli.demo.stack import Folders, Stack, running_stack
from membudget_cli.demo.summary import SOFT_PERCENT
from membudget_cli.demo.trace import Query, distinct_queries, skewed
from membudget_cli.figures import quantile
from membudget_cli.profile.asked import PAUSE_SECONDS, Asked
from membudget_cli.profile.outside import anonymous_bytes
from membudget_cli.profile.results import Curve, Phase, Side, Workload
from membudget_cli.programs import free_port, running_module, wait_ready
from membudget_cli.sidecar_client import SidecarClient, UnixSocket
from membudget_cli.witness import Witness

AGENTS: Final = 20
TOTAL: Final = "150Mi"
LAST_READINGS: Final = 20
"""A second's worth: what stands at the end of a phase is their median."""
OURS, NAIVE = "membudget", "naive"
READING_SECONDS: Final = 0.25
"""With such pauses 20 agents leave most of two processors idle; who reads an answer takes longer."""

POLICY: Final = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {{name: profile}}
spec:
  budget: {{total: {total}, signal: ResidentSetSize}}
  collections:
  - {{name: sessions, priority: High}}
"""
"""What agents said outlives answers, which can be had again."""


@dataclass(frozen=True, slots=True)
class Load:
    """One phase: so many questions, drawn by the demo's law from at most so many distinct ones."""

    name: str
    distinct: int
    questions: int
    news: bool = False
    """Whether every other question is one that was not asked in this phase before, as long as there are such."""
    after: int = 0
    """Goes on after so many questions of the same sequences."""
    pause_seconds: float = PAUSE_SECONDS
    """Of an agent between two questions."""

    def questions_of(self, agent: int, known: list[Query]) -> list[Query]:
        """Of one of the agents; the same in every run."""
        known = known[: self.distinct]
        again, fresh = skewed(known, agent), iter(known[agent::AGENTS])
        drawn = (next(fresh, next(again)) if self.news and turn % 2 else next(again) for turn in itertools.count())
        return [*itertools.islice(drawn, self.after // AGENTS, (self.after + self.questions) // AGENTS)]


def _loads(fitting: tuple[int, int], distinct: int, fast: int, paused: int) -> tuple[Load, Load, Load]:
    """Of distinct questions and questions: what fits, more than that, and the last of those with pauses."""
    return (
        Load("what fits", *fitting),
        Load("more than fits", distinct, fast, news=True),
        Load("with pauses", distinct, paused, news=True, after=fast, pause_seconds=READING_SECONDS),
    )


LOADS: Final = _loads((800, 4_000), 20_000, fast=31_000, paused=3_000)
QUICK_LOADS: Final = _loads((60, 300), 1_000, fast=600, paused=100)


@dataclass(frozen=True, slots=True)
class _Watched:
    """One of the two, while it is asked."""

    pid: int
    port: int
    witness: Witness


def measure_workload(
    folders: Folders, collection: str, tree: Path, tell: Callable[[str], None], *, quick: bool
) -> Workload:
    """Both engines serve `collection` of the folders' data, which was built from `tree`.

    Raises:
        ProgramFailed: one of them does not start, or ended.
    """
    folders.policy.write_text(POLICY.format(total=TOTAL))
    loads = QUICK_LOADS if quick else LOADS
    tell("workload: collecting questions")
    known = distinct_queries(collection, tree, max(load.distinct for load in loads))
    sources = [f"{collection}={tree}"]
    tell("workload: starting both engines")
    with running_stack(folders, sources) as stack, _naive(folders, sources) as (naive, port):
        watched = {
            OURS: _Watched(stack.engine.pid, stack.port, Witness(stack.engine.pid)),
            NAIVE: _Watched(naive.pid, port, Witness(naive.pid)),
        }
        with _witnessed(watched):
            return _Course(stack, watched, known, tell).run(loads)


class _Course:
    """The phases one after the other."""

    def __init__(
        self, stack: Stack, watched: dict[str, _Watched], known: list[Query], tell: Callable[[str], None]
    ) -> None:
        self._stack = stack
        self._watched = watched
        self._known = known
        self._tell = tell
        self._client = SidecarClient(UnixSocket(stack.sidecar_socket))
        self._failures: dict[str, int] = {}
        self._started = time.time()

    def run(self, loads: Sequence[Load]) -> Workload:
        phases: list[Phase] = []
        ends: list[float] = []
        for load in loads:
            phases.append(self._phase(load))
            ends.append(time.time() - self._started)
        ours, naive = self._watched[OURS], self._watched[NAIVE]
        fits, more, paused = phases
        return Workload(
            budget_bytes=self._client.status().budget_bytes,
            soft_percent=SOFT_PERCENT,
            agents=AGENTS,
            phases=(fits, more, paused),
            failures=self._failures,
            restarts=self._stack.restarts(),
            ours_curve=_curve(ours.witness, self._started),
            naive_curve=_curve(naive.witness, self._started),
            phase_ends=tuple(ends),
        )

    def _phase(self, load: Load) -> Phase:
        drawn = [load.questions_of(agent, self._known) for agent in range(AGENTS)]
        asked = Asked({name: side.port for name, side in self._watched.items()}, drawn, load.pause_seconds)
        since, before = time.time(), {name: _processor_seconds(side.pid) for name, side in self._watched.items()}
        asked.start()
        try:
            while asked.running:
                self._tell(f"workload: {load.name}, {asked.turns:,} of {load.questions:,} questions")
                time.sleep(0.5)
        finally:
            asked.stop()
        until = time.time()
        for failure, count in asked.failures.items():
            self._failures[failure] = self._failures.get(failure, 0) + count
        sides = {name: self._side(name, asked, since, before[name]) for name in self._watched}
        return Phase(
            name=load.name,
            questions=asked.turns,
            distinct=len({query.text for share in drawn for query in share}),
            ours=sides[OURS],
            naive=sides[NAIVE],
            signal_shares=self._signal_shares((since + until) / 2),
            transitions=self._client.status().transitions,
            pause_seconds=load.pause_seconds,
        )

    def _side(self, name: str, asked: Asked, since: float, processor_seconds: float) -> Side:
        side = self._watched[name]
        resident = [resident for at, resident in side.witness.readings if at >= since]
        ordered = sorted(asked.seconds[name])
        return Side(
            resident_bytes=int(statistics.median(resident[-LAST_READINGS:])),
            peak_bytes=max(resident),
            anonymous_bytes=anonymous_bytes(side.pid),
            p50=quantile(ordered, 0.5) or 0.0,
            p99=quantile(ordered, 0.99) or 0.0,
            processor_seconds=_processor_seconds(side.pid) - processor_seconds,
            answered_by=dict(asked.answered_by[name]),
            conversations_lost=asked.conversations_lost[name],
        )

    def _signal_shares(self, since: float) -> tuple[float, float, float]:
        budget = self._client.status().budget_bytes
        shares = [resident / budget for at, resident in self._watched[OURS].witness.readings if at >= since]
        return min(shares), statistics.median(shares), max(shares)


@contextmanager
def _naive(folders: Folders, sources: Sequence[str]) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    port, log = free_port(), folders.root / "naive.log"
    arguments = [str(port), str(folders.data), *sources]
    with running_module("membudget_cli.profile.measured.naive_engine", arguments, log) as process:
        wait_ready(process, f"http://127.0.0.1:{port}/readyz", log)
        yield process, port


@contextmanager
def _witnessed(watched: dict[str, _Watched]) -> Generator[None]:
    for side in watched.values():
        side.witness.start()
    try:
        yield
    finally:
        for side in watched.values():
            side.witness.stop()


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _curve(witness: Witness, started: float) -> Curve:
    return tuple((round(at - started, 2), resident) for at, resident in witness.readings)
