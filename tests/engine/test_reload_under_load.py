"""Reloads of a real engine while it is asked: no query fails, a storm ends, and what is newest is served."""

import contextlib
import http.client
import signal
import statistics
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from control_socket import ask
from engine import engine_process
from engine.engine_process import EngineProcess, search_body, wait_until
from membudget_contract import control_api as api
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.build import build_collection
from membudget_engine.ingest.chunk import Chunk

ChunkMaker = Callable[[int], list[Chunk]]

QUERIES_PER_SECOND = 200
CLIENTS = 4
GENERATIONS = 25
"""A reload meets a query in flight about every fourth time."""


@dataclass
class Prepared:
    """The collection `core` in its first generation, and the ones that will follow it."""

    data: Path
    waiting: list[Path]

    def publish_next(self) -> int:
        """Put the next generation into its place, as a builder does; its number."""
        folder = self.waiting.pop(0)
        folder.rename(self.data / "core" / folder.name)
        return int(folder.name.removeprefix("generation-"))


@pytest.fixture
def prepared(tmp_path: Path, make_chunks: ChunkMaker) -> Prepared:
    """Built before the engine starts: a builder beside it would be the load that is measured."""
    built: list[Path] = []
    for number in range(GENERATIONS):
        target = tmp_path / "building" / "core"
        generation = build_collection(
            collection="core",
            chunks=make_chunks(300 + number),
            embedder=HashingEmbedder(),
            target=target,
            threads=1,
            progress=lambda _: None,
        )
        kept = tmp_path / "built" / generation.directory.name
        kept.parent.mkdir(exist_ok=True)
        # A hard link each: the builder keeps only the newest two.
        kept.mkdir()
        for file in generation.directory.iterdir():
            (kept / file.name).hardlink_to(file)
        built.append(kept)
    (tmp_path / "data" / "core").mkdir(parents=True)
    prepared = Prepared(tmp_path / "data", built)
    prepared.publish_next()
    return prepared


@dataclass
class Load:
    """Queries at a steady rate, each its own, on kept connections."""

    engine: EngineProcess
    took: list[float] = field(default_factory=list[float])
    failed: list[str] = field(default_factory=list[str])
    ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Until the block ends."""
        clients = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self.ended.set()
            for client in clients:
                client.join()

    def p99_ms(self, first: int = 0) -> float:
        """Over the queries from this one on."""
        return 1000 * statistics.quantiles(self.took[first:], n=100)[98]

    def _ask(self, client: int) -> None:
        connection = self.engine.connect()
        begun, number = time.monotonic(), 0
        while not self.ended.is_set():
            number += 1
            due = begun + number * CLIENTS / QUERIES_PER_SECOND
            if self.ended.wait(max(0.0, due - time.monotonic())):
                break
            body = search_body(f"def parse_socket_{number} of client {client}", collection="core")
            started = time.perf_counter()
            try:
                reply = engine_process.ask(connection, "POST", "/v1/search", body)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection = self.engine.connect()
                continue
            self.took.append(time.perf_counter() - started)
            if reply.status != 200:
                self.failed.append(reply.body.decode())
        connection.close()


def _served(engine: EngineProcess) -> int:
    (collection,) = engine.ask("GET", "/v1/collections").json()
    return collection["generation"]


def _reload(engine: EngineProcess) -> api.Reloaded:
    return ask(engine.run / "engine.sock", "POST", api.RELOAD_PATH, api.Reloaded, api.ReloadRequest())


def test_at_200_queries_a_second_a_reload_fails_none(
    prepared: Prepared, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-P09, fault 49: 24 new generations, one after the other."""
    with EngineProcess(prepared.data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        load = Load(engine)
        with load.running():
            wait_until(lambda: len(load.took) >= 2 * QUERIES_PER_SECOND)
            quiet, before = load.p99_ms(), len(load.took)
            while prepared.waiting:
                expected = prepared.publish_next()
                answer = _reload(engine)
                assert (answer.changed, answer.problem, _served(engine)) == (True, None, expected)
                until = len(load.took) + QUERIES_PER_SECOND // 10
                wait_until(lambda until=until: len(load.took) >= until)
        publish(
            f"reload at {QUERIES_PER_SECOND} queries/s: {len(load.failed)} of {len(load.took)} failed, p99 "
            f"{quiet:.1f} ms before, {load.p99_ms(before):.1f} ms with {GENERATIONS - 1} reloads of a new generation"
        )
        assert load.failed == []
        maps = Path(f"/proc/{engine.process.pid}/maps").read_text()
        mapped = {line.split("/")[-2] for line in maps.splitlines() if line.endswith("index.faiss")}
        assert mapped == {f"generation-{GENERATIONS:08}"}
        report = ask(engine.run / "engine.sock", "GET", api.REPORT_PATH, api.Report)
        assert report.requests is not None
        assert report.requests.count >= len(load.took)
        assert "Traceback" not in engine.log


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.soak)])
def test_a_storm_of_reloads_and_signals_ends_and_the_newest_generation_is_served(
    prepared: Prepared, tmp_path: Path, publish: Callable[[str], None], seconds: int
) -> None:
    """R-P09, fault 50: 100 reloads a second and 1,000 SIGHUPs, under queries; no deadlock, no query failed."""
    with EngineProcess(prepared.data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        load, answers = Load(engine), list[api.Reloaded]()

        def storm() -> None:
            begun = time.monotonic()
            for number in range(seconds * 100 // 4):
                time.sleep(max(0.0, begun + number / 25 - time.monotonic()))  # the rate asked for
                answers.append(_reload(engine))

        with load.running():
            started = time.monotonic()
            threads = [threading.Thread(target=storm) for _ in range(4)]
            for thread in threads:
                thread.start()
            for number in range(1_000):
                if number % 250 == 0:
                    prepared.publish_next()
                time.sleep(max(0.0, started + seconds * number / 1_000 - time.monotonic()))  # the rate asked for
                engine.process.send_signal(signal.SIGHUP)
            for thread in threads:
                thread.join()
            took = time.monotonic() - started
            newest = prepared.publish_next()
            engine.process.send_signal(signal.SIGHUP)
            wait_until(lambda: _served(engine) == newest)
        batches = engine.log.count("reload asked for by")
        publish(
            f"storm: {len(answers) / took:.0f} reloads/s asked over {took:.1f} s and 1,001 SIGHUPs in {batches} "
            f"batches; {len(load.failed)} of {len(load.took)} queries failed, p99 {load.p99_ms():.1f} ms"
        )
        assert (load.failed, [answer.problem for answer in answers]) == ([], [None] * 100 * seconds)
        assert 0 < batches <= 1_001
        assert engine.terminate() == 0
        assert "Traceback" not in engine.log


def test_sighup_reloads_and_during_start_up_it_is_not_the_end(prepared: Prepared, tmp_path: Path) -> None:
    """R-P09: the signal's default action would end the engine."""
    with EngineProcess(prepared.data, tmp_path / "engine") as engine:
        wait_until(lambda: _handles_sighup(engine.process.pid))
        engine.process.send_signal(signal.SIGHUP)
        engine.wait_until_serving()
        expected = prepared.publish_next()
        assert _served(engine) < expected
        engine.process.send_signal(signal.SIGHUP)
        wait_until(lambda: _served(engine) == expected)
        assert "reload asked for by 1 signals" in engine.log


def _handles_sighup(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    caught = int(next(line.split()[1] for line in lines if line.startswith("SigCgt:")), 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1)


def test_a_damaged_generation_is_told_and_the_present_one_answers(prepared: Prepared, tmp_path: Path) -> None:
    """R-P09, fault 51: over the socket, with the observer's name."""
    with EngineProcess(prepared.data, tmp_path / "engine") as engine:
        engine.wait_until_serving()
        number = prepared.publish_next()
        (prepared.data / "core" / f"generation-{number:08}" / "index.faiss").unlink()
        answer = _reload(engine)
        assert (answer.changed, [(one.name, one.ok) for one in answer.observers]) == (False, [("index", False)])
        assert answer.problem is not None
        assert answer.problem.startswith(f"index: core: {prepared.data}/core/generation-{number:08}/index.faiss cannot")
        assert engine.search("parse a socket", collection="core").status == 200
