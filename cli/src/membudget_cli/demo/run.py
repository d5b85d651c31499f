"""The course of the demo: build, serve, ask, edit the policy half-way, tell what happened.

Covers: the order of things and cleaning up. Pressure comes from queries and their cached answers alone: no ballast,
no thresholds but the built-in ones.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from rich.console import Console

import membudget_engine
from membudget_cli.demo.agents import Agents
from membudget_cli.demo.stack import Folders, Stack, build_index, running_stack, temporary_folders
from membudget_cli.demo.summary import Half, Outcome, show
from membudget_cli.demo.trace import Query, distinct_queries, skewed
from membudget_cli.demo.view import Moment, Show, shown
from membudget_cli.figures import quantile
from membudget_cli.programs import ProgramFailed
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable, UnixSocket
from membudget_cli.witness import Witness
from membudget_contract.quantities import parse_quantity
from membudget_engine.ingest.python_source import standard_library_root

AGENTS: Final = 20
PAUSE_SECONDS: Final = 0.03
DISTINCT_QUERIES: Final = 9_000
OWN_QUERIES: Final = 400
OWN_SHARE: Final = 4
"""One in this many agents asks about membudget's own code, the Low collection."""
BEFORE, AFTER = "165Mi", "150Mi"

POLICY: Final = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {{name: demo}}
spec:
  budget: {{total: {total}, signal: ResidentSetSize}}
  collections:
  - {{name: stdlib, priority: High}}
  - {{name: membudget, priority: Low}}
"""


def run_demo(seconds: int) -> int:
    """Run it; returns the exit code: 0 when it held, 1 when not."""
    console = Console()
    console.print(
        f"A retrieval engine with this Python's standard library as its corpus, a sidecar beside it, {AGENTS} agents "
        f"asking.\nThe budget is {BEFORE} of resident memory; half-way the policy file is edited to {AFTER}.\n"
    )
    own_code = Path(membudget_engine.__file__).parents[3]
    try:
        with temporary_folders() as folders:
            console.print("Building the index, in a process of its own (about 10 s) ...")
            build_index(folders, ["stdlib", f"membudget={own_code}"])
            _write_policy(folders, BEFORE)
            traces = _queries(own_code)
            with running_stack(folders) as stack:
                return _run_load(console, stack, traces, seconds)
    except (ProgramFailed, SidecarUnreachable) as error:
        console.print(f"[bold red]{error}[/]")
        return 1


def _write_policy(folders: Folders, total: str) -> None:
    """As an editor saves: beside, then renamed over."""
    aside = folders.policy.with_suffix(".new")
    aside.write_text(POLICY.format(total=total))
    aside.replace(folders.policy)


def _queries(own_code: Path) -> tuple[list[Query], list[Query]]:
    return (
        distinct_queries("stdlib", standard_library_root(), DISTINCT_QUERIES),
        distinct_queries("membudget", own_code, OWN_QUERIES),
    )


def _run_load(console: Console, stack: Stack, queries: tuple[list[Query], list[Query]], seconds: int) -> int:
    main, own = queries
    traces = [skewed(own if number % OWN_SHARE == 0 else main, number) for number in range(AGENTS)]
    agents = Agents(stack.port, traces, PAUSE_SECONDS)
    witness = Witness(stack.engine.pid)
    witness.start()
    agents.start()
    load = _Load(stack, agents, witness, seconds)
    try:
        with shown(console) as show_moment:
            before = load.half(f"under {BEFORE}: caches fill up to the room", BEFORE, (0, seconds // 2), show_moment)
            _write_policy(stack.folders, AFTER)
            after = load.half(f"the policy file now says {AFTER}", AFTER, (seconds // 2, seconds), show_moment)
    finally:
        agents.stop()
    restarts = stack.restarts()
    actions = SidecarClient(UnixSocket(stack.sidecar_socket)).actions()
    witness.stop()
    outcome = Outcome(before, after, actions, agents.answers, dict(agents.failed), restarts)
    show(console, outcome, witness)
    return 0 if outcome.held() else 1


class _Load:
    """Collects moments while the agents ask."""

    def __init__(self, stack: Stack, agents: Agents, witness: Witness, seconds: int) -> None:
        self._client = SidecarClient(UnixSocket(stack.sidecar_socket))
        self._agents = agents
        self._witness = witness
        self._seconds = seconds
        self._started = time.monotonic()

    def half(self, phase: str, total: str, seconds: tuple[int, int], show_moment: Show) -> Half:
        """Show every second from the first to the last; the state at the end, when `total` is asked for."""
        since, answers = time.time(), len(self._agents.seconds)
        answered_before = self._agents.answers
        for second in range(*seconds):
            time.sleep(max(0.0, self._started + second + 1 - time.monotonic()))
            answered = self._agents.answers
            show_moment(self._moment(phase, second + 1, answered - answered_before))
            answered_before = answered
        ordered = sorted(self._agents.seconds[answers:])
        return Half(
            parse_quantity(total),
            self._client.status(),
            self._witness.latest_bytes,
            self._witness.peak_bytes(since, time.time()),
            quantile(ordered, 0.5),
            quantile(ordered, 0.99),
        )

    def _moment(self, phase: str, second: int, answered: int) -> Moment:
        ordered = sorted(self._agents.recent.copy())
        total = self._agents.answers
        cached = total - self._agents.answered["index"]
        return Moment(
            phase,
            second,
            self._seconds,
            self._client.status(),
            self._witness.latest_bytes,
            self._client.actions(),
            total,
            self._agents.failures,
            float(answered),
            cached / total if total else None,
            quantile(ordered, 0.5),
            quantile(ordered, 0.99),
        )
