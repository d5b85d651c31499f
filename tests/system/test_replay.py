"""A replay predicts what a sidecar does: learned on one run, held against another one under another load."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from membudget_cli.programs import free_port
from membudget_cli.replay.comparison import Deed, compare, deeds_of, predicted_deeds
from membudget_cli.replay.effects import Effects, learn_effects
from membudget_cli.replay.recording_file import Session, read_recording
from membudget_cli.replay.simulation import simulate
from membudget_cli.sidecar_client import SidecarClient, UnixSocket
from membudget_contract.quantities import MIB
from system.serving import until

SERVICE = Path(__file__).with_name("scripted_service.py")
CACHE_MEBIBYTES = 90
START_SECONDS = 30.0
POLICY = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {name: replayed}
spec:
  mode: %s
  budget: {total: 200Mi, signal: ResidentSetSize, components: {semanticCache: 120Mi}}
  thresholds:
    collect: {cooldownSeconds: 4}
    soft: {cooldownSeconds: 2}
    hard: {cooldownSeconds: 2}
"""
Script = Sequence[tuple[float, float]]

LEARNED: Script = [(0, 0), (2, 0), (7, 70), (9, 70), (10, 10), (12, 10), (18, 110), (21, 110)]
HELD_OUT: Sequence[Script] = (
    [(0, 0), (1, 0), (2, 45), (5, 50), (8, 62), (9, 5), (11, 5), (17, 95), (19, 95), (19.5, 20), (22, 20)],
    [(0, 0), (1, 0), (4, 46), (6, 46), (7.5, 10), (8.5, 10), (12.5, 68), (14.5, 68), (16.5, 20), (17, 20), (21.5, 88)],
    [(0, 0), (1, 0), (8.8, 66), (10.5, 66), (12.5, 5), (13, 5), (19, 88), (20.5, 88), (22, 0)],
)
"""Seconds and MiB: other paces, other heights, other orders."""
AT_LEAST = 0.95
ACTIONS = 20
"""Fewer cannot tell 95 % from all: the one action whose rung a run enters or does not by a few hundred kilobytes."""


class Run:
    """A service and a sidecar that records."""

    def __init__(self, folder: Path, script: Script, mode: str) -> None:
        folder.mkdir()
        self.recording = folder / "recording"
        run, policy = folder / "run", folder / "policy.yaml"
        policy.write_text(POLICY % mode)
        self.service = subprocess.Popen(
            [sys.executable, str(SERVICE), str(run), str(folder / "service"), str(CACHE_MEBIBYTES), json.dumps(script)],
            env={**os.environ, "MEMBUDGET_TOTAL": "400Mi"},  # its ceilings until it has a plan
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.service.stdout is not None
        assert self.service.stdout.readline() == "ready\n"
        self.sidecar = subprocess.Popen(
            [sys.executable, "-m", "membudget_sidecar", f"--run={run}", f"--state={folder / 'sidecar'}",
             f"--policy={policy}", f"--port={free_port()}", f"--record={self.recording}"]
        )  # fmt: skip
        self._client = SidecarClient(UnixSocket(run / "sidecar.sock"))
        self.began_at = 0.0

    def is_watched(self) -> bool:
        """The sidecar has read the service."""
        with contextlib.suppress(Exception):
            return self._client.status().usage.value is not None
        return False

    def go(self) -> None:
        """Let the service follow its script from now on."""
        assert self.service.stdin is not None
        self.began_at = time.monotonic()
        self.service.stdin.write("go\n")
        self.service.stdin.flush()

    def session(self) -> Session:
        """What was recorded once the service has ended."""
        assert self.service.wait(timeout=60) == 0
        self.sidecar.terminate()
        assert self.sidecar.wait(timeout=20) == 0
        (session,) = read_recording(self.recording)
        return session

    def end(self) -> None:
        """Leave nothing behind."""
        for process in (self.service, self.sidecar):
            process.kill()
            process.communicate()


@contextlib.contextmanager
def runs(folder: Path) -> Generator[Callable[[str, Script, str], Run]]:
    """Starts runs, and ends whatever is left of them."""
    started: list[Run] = []

    def start(name: str, script: Script, mode: str) -> Run:
        started.append(Run(folder / name, script, mode))
        return started[-1]

    try:
        yield start
    finally:
        for run in started:
            run.end()


def test_a_replay_predicts_what_is_done_under_a_load_it_was_not_learned_on(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-T03, R-S03: samples recorded in Observe foretell at least 95 % of what the policy does when it enforces."""
    with runs(tmp_path) as start:
        learned = start("learned", LEARNED, "Enforce")
        pairs = [
            (start(f"observed {number}", script, "Observe"), start(f"enforced {number}", script, "Enforce"))
            for number, script in enumerate(HELD_OUT)
        ]
        everyone = [learned, *itertools.chain(*pairs)]
        until(lambda: all(run.is_watched() for run in everyone), START_SECONDS)
        for run in everyone:
            run.go()
        effects = learn_effects(learned.session().actions)
        held_out = [
            (foretell(observed, effects), deeds_of(enforced.session(), enforced.began_at))
            for observed, enforced in pairs
        ]
    same = [compare(foretold, done) for foretold, done in held_out]
    matched, larger = sum(each.matched for each in same), sum(max(each.predicted, each.done) for each in same)
    publish(f"replay: {[(each.matched, each.predicted, each.done) for each in same]} actions matched, predicted, done")
    assert larger >= ACTIONS
    assert matched / larger >= AT_LEAST, "\n".join(f"predicted {foretold}\ndone {done}" for foretold, done in held_out)


def foretell(observed: Run, effects: Effects) -> list[Deed]:
    """What enforcing would do to the load that was observed, where nothing was done."""
    load = observed.session()
    assert deeds_of(load, 0.0) == []
    predicted = simulate(load, None, effects)
    assert (predicted.peak_bytes or 0) < 250 * MIB
    return predicted_deeds(predicted.actions, observed.began_at)
