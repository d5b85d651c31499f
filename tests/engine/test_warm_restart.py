"""A real engine that is stopped and started again: what it had cached answers the next life's queries."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from control_socket import ask
from engine.engine_process import EngineProcess, wait_until
from engine.written import note
from membudget_contract import control_api as api

TRACE_QUERIES = 600
QUESTIONS = 400
POINTS = 0.05
PERSISTED = "semanticCache.Medium"
SPILLABLE = 50
"""Hits: what was found for so many is longer than what a value on disk costs in memory."""


def trace(seed: int) -> list[str]:
    """Questions by Zipf's law, as agents ask them."""
    weights = [1 / rank for rank in range(1, QUESTIONS + 1)]
    drawn = random.Random(seed).choices(range(QUESTIONS), weights, k=TRACE_QUERIES)
    return [f"read {number} of the stream {number * 7919}" for number in drawn]


def hit_rate(engine: EngineProcess, queries: list[str]) -> float:
    """The share of these that was answered from the cache; every one is answered."""
    hits = 0
    for query in queries:
        reply = engine.search(query)
        assert reply.status == 200
        hits += reply.json()["answered_by"] != "index"
    return hits / len(queries)


def report(engine: EngineProcess) -> api.Report:
    """The engine's own figures."""
    return ask(engine.run / "engine.sock", "GET", api.REPORT_PATH, api.Report)


def fill(engine: EngineProcess, count: int, hits: int = 5) -> None:
    """So many answers in the cache."""
    for number in range(count):
        assert engine.search(f"parse header {number} of {number * 104729}", hits=hits).status == 200


def test_a_restarted_engine_hits_as_often_as_if_it_had_never_stopped(
    small_data: Path, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E17: SIGTERM, code 0, start: within 5 points on the same trace; how many came back is in the report."""
    with EngineProcess(small_data, tmp_path) as engine:
        cold = hit_rate(engine.wait_until_serving(), trace(1))
        hit_rate(engine, trace(2))
        going_on = hit_rate(engine, trace(2))
        held = sum(part.entries for part in report(engine).components if part.name == "semanticCache")
        assert engine.terminate() == 0
        assert f"persisted {held} entries" in engine.log

    with EngineProcess(small_data, tmp_path) as engine:
        began = report(engine.wait_until_serving())
        warm = hit_rate(engine, trace(2))
    assert (began.restored, began.set_aside, held > 100) == (held, 0, True)
    assert warm >= going_on - POINTS
    assert cold < warm - POINTS
    publish(f"hit rate of an engine: cold {cold:.3f}, going on {going_on:.3f}, restarted {warm:.3f}")


def test_a_writer_is_as_warm_again_as_a_reader(small_data: Path, tmp_path: Path) -> None:
    """R-E17, R-E18: answers that were found beyond the generation, in what was written since, come back with it."""
    data = shutil.copytree(small_data, tmp_path / "data")
    with EngineProcess(data, tmp_path, options=["--writer"]) as engine:
        write = msgspec.json.encode({"chunks": [note(1, "how to wind a clock")]})
        assert 200 == engine.wait_until_serving().ask("POST", "/v1/chunks/small", write).status
        fill(engine, 20)
        assert engine.terminate() == 0
    with EngineProcess(data, tmp_path, options=["--writer"]) as engine:
        assert report(engine.wait_until_serving()).restored == 20
        assert 1.0 == hit_rate(engine, [f"parse header {number} of {number * 104729}" for number in range(20)])


@pytest.mark.parametrize("grace", [1, 5, 30])
def test_a_kill_at_the_end_of_the_grace_period_loses_nothing(small_data: Path, tmp_path: Path, grace: int) -> None:
    """R-E17, fault 57: as a kubelet does it; a client that never sends its body gets no more than its share of it."""
    with EngineProcess(small_data, tmp_path, options=["--grace", str(grace)]) as engine:
        fill(engine.wait_until_serving(), 100)
        with contextlib.closing(engine.connect()) as connection:
            connection.putrequest("POST", "/v1/search")
            connection.putheader("Content-Length", "100")
            connection.endheaders()
            engine.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                engine.process.wait(timeout=grace)
            engine.process.kill()
    with EngineProcess(small_data, tmp_path) as engine:
        began = report(engine.wait_until_serving())
        assert (began.restored, began.set_aside) == (100, 0)


def test_further_signals_while_it_stops_change_nothing(small_data: Path, tmp_path: Path) -> None:
    """R-E17, fault 58: a second SIGTERM, and a hundred."""
    with EngineProcess(small_data, tmp_path) as engine:
        fill(engine.wait_until_serving(), 200)
        stormed = threading.Thread(target=_storm, args=(engine,))
        stormed.start()
        assert engine.process.wait(timeout=5.0) == 0
        stormed.join()
        assert "Traceback" not in engine.log
        assert "persisted 200 entries" in engine.log


def _storm(engine: EngineProcess) -> None:
    while engine.process.poll() is None:
        engine.process.send_signal(signal.SIGTERM)
        time.sleep(0.02)  # spread over the whole stop


def test_a_signal_while_it_starts_or_restores_leaves_what_was_persisted(small_data: Path, tmp_path: Path) -> None:
    """R-E17, fault 58: at whichever moment it comes, half a restore is never written over the whole file."""
    with EngineProcess(small_data, tmp_path) as engine:
        fill(engine.wait_until_serving(), 150)
        assert engine.terminate() == 0
    for after_ms in (0, 150, 250, 300, 350, 400, 500):
        with EngineProcess(small_data, tmp_path) as engine:
            wait_until(lambda: bool(_caught(engine)))
            time.sleep(after_ms / 1000)  # hides no race: it spreads the moments, and each of them must do
            assert engine.terminate() == 0
            assert "Traceback" not in engine.log
    with EngineProcess(small_data, tmp_path) as engine:
        assert report(engine.wait_until_serving()).restored == 150


def _caught(engine: EngineProcess) -> int:
    lines = Path(f"/proc/{engine.process.pid}/status").read_text(encoding="utf-8").splitlines()
    caught = int(next(line.split()[1] for line in lines if line.startswith("SigCgt:")), 16)
    return caught >> (signal.SIGTERM - 1) & 1


def test_a_signal_during_a_spill_ends_it_with_everything_persisted(small_data: Path, tmp_path: Path) -> None:
    """R-E17, fault 58: what is on disk already is persisted too, wherever the spill is; the next life spills anew."""
    with EngineProcess(small_data, tmp_path) as engine:
        fill(engine.wait_until_serving(), 400, SPILLABLE)
        request = api.FreeRequest(means=api.Means.SPILL, target_bytes=1 << 30)
        spilled: list[int] = []

        def spill() -> None:
            try:
                spilled.append(ask(engine.run / "engine.sock", "POST", api.FREE_PATH, api.Freed, request).entries)
            except (OSError, http.client.HTTPException):
                return  # the engine ended before it answered

        asking = threading.Thread(target=spill)
        asking.start()
        assert engine.terminate() == 0
        asking.join()
    with EngineProcess(small_data, tmp_path) as engine:
        began = report(engine.wait_until_serving())
        assert (began.restored, began.set_aside) == (400, 0)
        assert not any((tmp_path / "state" / "spill").iterdir())


def _newer(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"MBENTRY3" + content[8:])


def _torn(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def _foreign(path: Path) -> None:
    path.write_bytes(os.urandom(10_000))


@pytest.mark.parametrize("harm", [_newer, _torn, _foreign])
def test_state_of_no_use_is_set_aside_and_counted_and_the_engine_serves(
    small_data: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """R-E17: newer, torn, foreign; the next life finds what this one persists."""
    with EngineProcess(small_data, tmp_path) as engine:
        fill(engine.wait_until_serving(), 50)
        assert engine.terminate() == 0
    persisted = tmp_path / "state" / "persisted"
    harm(persisted / PERSISTED)
    kept_aside = (persisted / PERSISTED).read_bytes()
    with EngineProcess(small_data, tmp_path) as engine:
        began = report(engine.wait_until_serving())
        assert (began.restored, began.set_aside) == (0, 1)
        assert (persisted / f"{PERSISTED}.damaged").read_bytes() == kept_aside
        fill(engine, 20)
        assert engine.terminate() == 0
    with EngineProcess(small_data, tmp_path) as engine:
        began = report(engine.wait_until_serving())
        assert (began.restored, began.set_aside) == (20, 0)


def test_an_engine_that_could_not_persist_does_not_end_as_if_it_had(small_data: Path, tmp_path: Path) -> None:
    """R-E17, known bug 9: exit code 1 and a line that says why; it stops all the same, and serves again."""
    with EngineProcess(small_data, tmp_path) as engine:
        fill(engine.wait_until_serving(), 20)
        (tmp_path / "state" / "persisted").write_bytes(b"no folder")
        assert engine.terminate() == 1
        reason = "stopped, 0 entries were persisted and not all: sessions, class Critical: File exists"
        assert engine.log.splitlines()[-1] == f"membudget-engine: {reason}"
    with EngineProcess(small_data, tmp_path) as engine:
        assert report(engine.wait_until_serving()).restored == 0
