"""What the environment of an engine's process sets beside budgets: guards, garbage collection; and memory it lacks."""

import asyncio
import resource
from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from control_socket import ask
from engine.engine_process import EngineProcess, wait_until
from membudget_contract.control_api import REPORT_PATH, GcMode, Report
from membudget_engine.http_answers import typed
from membudget_runtime.interpreter.gc_tuner import NEVER


def test_an_engine_serves_under_its_guard_in_latency_mode(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-E20, R-E11: the kernel shows the limit; what was there when it began to serve is frozen."""
    monkeypatch.setenv("MEMBUDGET_GUARD_DATA", "768Mi")
    with EngineProcess(small_data, tmp_path).wait_until_serving() as engine:
        assert resource.prlimit(engine.process.pid, resource.RLIMIT_DATA)[0] == 768 * 1024 * 1024
        report = ask(engine.run / "engine.sock", "GET", REPORT_PATH, Report)
        assert engine.search("parse a header").status == 200
        assert engine.terminate() == 0
    assert (report.gc.mode, report.gc.frozen > 10_000) == (GcMode.LATENCY, True)
    assert report.gc.thresholds == (20_000, 20, NEVER)
    assert report.base_bytes is not None
    assert report.base_limit_bytes is not None
    assert 0 < report.base_bytes < report.base_limit_bytes


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("MEMBUDGET_GUARD_DATA", "8Mi", "MEMBUDGET_GUARD_DATA asks for 8388608 bytes, and the process has"),
        ("MEMBUDGET_GC_MODE", "Fast", "'Fast' is none of Default, Latency, Memory"),
    ],
)
def test_an_engine_that_cannot_hold_what_is_asked_says_so_and_ends(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, said: str
) -> None:
    """R-E20, R-E11: one line, exit code 1, nothing served."""
    monkeypatch.setenv(variable, text)
    with EngineProcess(small_data, tmp_path) as engine:
        wait_until(lambda: engine.process.poll() is not None)
        assert (engine.process.returncode, said in engine.log) == (1, True)
        assert "Traceback" not in engine.log


def test_a_request_without_memory_is_a_typed_503() -> None:
    """R-E20: one that may be tried again, and no error in the log."""

    async def greedy(_request: Request) -> Response:
        raise MemoryError

    async def answered() -> Response:
        return await typed(greedy)(Request({"type": "http"}))

    answer = asyncio.run(answered())
    body = msgspec.json.decode(bytes(answer.body))
    assert (answer.status_code, body["reason"], answer.headers["retry-after"]) == (503, "OutOfMemory", "1")
