"""An acknowledged write survives SIGKILL, wherever it strikes; a write that was not is there whole or not at all.

`MEMBUDGET_WRITE_KILLS` says how many of each kind; `make torture` asks for a thousand.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import msgspec
import pytest

from engine.engine_process import EngineProcess, Reply
from engine.written import notes, written
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.failpoints import VARIABLE, Failpoint
from membudget_engine.index.build import build_collection

KILLS = int(os.environ.get("MEMBUDGET_WRITE_KILLS", "60"))
COLLECTION_LIVES = 11
"""Kills until a new collection begins, so that its making is struck too."""

_RELOAD = (Failpoint.RELOAD_OPENED, Failpoint.RELOAD_EXCHANGED)
WRITING = tuple(place for place in Failpoint if place not in _RELOAD)


@dataclass
class Survivor:
    """A data folder, what it must hold, and the process that forks its writers."""

    folder: Path
    server: subprocess.Popen[str]
    held: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    applied_unacknowledged: int = 0

    def strike(self, collection: str, seed: int, failpoint: str, after_seconds: float | None = None) -> int:
        """One life of a writer, ended at the failpoint or after so many seconds; its wait status."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        journal = self.folder / "journal"
        journal.unlink(missing_ok=True)
        arguments = (self.folder / "data", self.folder / "state", journal, collection, seed, failpoint)
        self.server.stdin.write(" ".join(map(str, arguments)) + "\n")
        self.server.stdin.flush()
        child = int(self.server.stdout.readline())
        if after_seconds is not None:
            time.sleep(after_seconds)  # the moment of the kill is what is tested
            os.kill(child, signal.SIGKILL)
        status = int(self.server.stdout.readline())
        self._compare(collection, journal)
        return status

    def _compare(self, collection: str, journal: Path) -> None:
        lines = journal.read_text().splitlines() if journal.exists() else []
        state = dict(self.held.get(collection, {}))
        begun: dict[str, str] | None = None
        for line in lines:
            if line == "acknowledged":
                assert begun is not None
                state, begun = begun, None
            else:
                begun = _after(state, line)
        with written(self.folder / "data", self.folder / "state") as opened:
            there = collection in opened.catalog.collections
            found = opened.texts(collection) if there else {}
            if there:
                core = opened.catalog.collections[collection]
                assert core.count == len(found)
        if begun is not None and found == begun and begun != state:
            self.applied_unacknowledged += 1
            state = begun
        assert state == found
        self.held[collection] = state


def _after(state: dict[str, str], line: str) -> dict[str, str]:
    _, kind, first, end, text = line.split(" ", 4)
    numbers = range(int(first), int(end))
    if kind == "put":
        return {**state, **{f"note-{number}": f"{text} {number}" for number in numbers}}
    gone = {f"note-{number}" for number in numbers}
    return {chunk_id: text for chunk_id, text in state.items() if chunk_id not in gone}


@pytest.fixture
def survivor(tmp_path: Path) -> Iterator[Survivor]:
    """With a process that forks writers."""
    argv = [sys.executable, str(Path(__file__).with_name("crashing_writer.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        yield Survivor(tmp_path, server)
        server.kill()


def test_a_writer_killed_at_every_point_of_upsert_and_seal_loses_no_acknowledged_write(
    survivor: Survivor, publish: Callable[[str], None]
) -> None:
    """R-E18, fault 55: killed by itself at each failpoint in turn, at its first, second or third passing."""
    for number in range(KILLS):
        place = WRITING[number % len(WRITING)]
        failpoint = f"{place}:{number // len(WRITING) % 3 + 1}"
        status = survivor.strike(f"c{number // COLLECTION_LIVES}", number, failpoint)
        assert (failpoint, os.WTERMSIG(status) if os.WIFSIGNALED(status) else status) == (failpoint, signal.SIGKILL)
    publish(
        f"{KILLS} writers killed at {len(WRITING)} points of upsert and seal: no acknowledged write lost, "
        f"{survivor.applied_unacknowledged} that were not acknowledged are there whole"
    )


def test_a_writer_killed_at_any_moment_loses_no_acknowledged_write(
    survivor: Survivor, publish: Callable[[str], None]
) -> None:
    """R-E18, fault 55: by another process, in between."""
    draw = random.Random(7)
    for number in range(KILLS):
        status = survivor.strike(f"c{number // COLLECTION_LIVES}", 1000 + number, "-", draw.uniform(0.005, 0.25))
        assert os.WIFSIGNALED(status)
    publish(f"{KILLS} writers killed after 5 to 250 ms: no acknowledged write lost")


@pytest.mark.parametrize("place", [Failpoint.BEFORE_COMMIT, Failpoint.AFTER_COMMIT, Failpoint.APPLIED])
def test_an_engine_killed_while_it_writes_answers_for_what_it_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Failpoint
) -> None:
    """R-E18: over HTTP, with the failpoint from the environment."""
    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--writer"]) as engine:
        engine.wait_until_serving()
        for number in range(3):
            assert _upsert(engine, number).status == 200
    # The first write of a collection publishes it; this one's second passing is the fifth write's.
    monkeypatch.setenv(VARIABLE, f"{place}:2")
    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--writer"]) as engine:
        engine.wait_until_serving()
        assert _upsert(engine, 3).status == 200
        with pytest.raises((OSError, HTTPException)):
            _upsert(engine, 4)
        assert engine.process.wait(10) == -signal.SIGKILL
    monkeypatch.delenv(VARIABLE)
    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--writer"]) as engine:
        engine.wait_until_serving()
        statuses = [engine.ask("GET", f"/v1/chunks/core/note-{number}").status for number in range(5)]
        assert statuses == [200, 200, 200, 200, 404 if place is Failpoint.BEFORE_COMMIT else 200]


def _upsert(engine: EngineProcess, number: int) -> Reply:
    body = {"chunks": notes(range(number, number + 1), "text")}
    return engine.ask("POST", "/v1/chunks/core", msgspec.json.encode(body))


@pytest.mark.parametrize("place", _RELOAD)
def test_an_engine_killed_while_it_reloads_begins_with_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Failpoint
) -> None:
    """R-P09: a reload writes nothing, so there is nothing to repair."""

    def build(text: str) -> None:
        build_collection(
            collection="core", chunks=notes(range(5), text), embedder=HashingEmbedder(), threads=1,
            target=tmp_path / "data" / "core", progress=lambda _: None,
        )  # fmt: skip

    build("first")
    monkeypatch.setenv(VARIABLE, f"{place}:1")
    with EngineProcess(tmp_path / "data", tmp_path / "engine") as engine:
        engine.wait_until_serving()
        build("second")
        engine.process.send_signal(signal.SIGHUP)
        assert engine.process.wait(10) == -signal.SIGKILL
    monkeypatch.delenv(VARIABLE)
    with EngineProcess(tmp_path / "data", tmp_path / "engine") as engine:
        engine.wait_until_serving()
        assert engine.ask("GET", "/v1/chunks/core/note-1").json()["source"] == "second 1"


def test_a_failpoint_that_is_none_is_refused() -> None:
    """A test must not pass for want of a crash."""
    environment = {**os.environ, VARIABLE: "nowhere:1"}
    argv = [sys.executable, "-c", "import membudget_engine.failpoints"]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "'nowhere' is not a valid Failpoint" in ended.stderr
