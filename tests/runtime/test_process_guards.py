"""Limits of the process: one request over them fails, typed, and the process lives on."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from control_socket import Refused, ask
from membudget_contract import control_api as api
from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.errors import EnvironmentInvalid
from membudget_runtime.errors import GuardRefused
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.process_guards import GuardKind, ProcessGuards, counted_bytes, guards_asked
from runtime.fakes import MB

SERVICE = Path(__file__).with_name("guarded_service.py")
LIMITED = Path(__file__).with_name("limited_cache.py")
GUARD = 512 * MB
DATA, ADDRESS_SPACE = "MEMBUDGET_GUARD_DATA", "MEMBUDGET_GUARD_ADDRESS_SPACE"
LARGE = {DATA: "64Gi", ADDRESS_SPACE: "1024Gi"}


@pytest.fixture(autouse=True)
def found() -> Generator[tuple[tuple[int, int], ...]]:
    """The limits before a test; they must be so after it."""
    before = _limits()
    yield before
    assert _limits() == before


def _limits() -> tuple[tuple[int, int], ...]:
    return resource.getrlimit(resource.RLIMIT_DATA), resource.getrlimit(resource.RLIMIT_AS)


def test_a_request_over_the_guard_fails_alone_and_the_process_lives_on(tmp_path: Path) -> None:
    """R-E20: a real process; 1 GiB over a guard of 512 MiB is a typed 503, what is asked before and after is done."""
    socket = tmp_path / "engine.sock"
    argv = [sys.executable, str(SERVICE), str(tmp_path), "512Mi"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stdout.readline() == "serving\n"
        limits = (Path("/proc") / str(service.pid) / "limits").read_text()
        pids = [ask(socket, "GET", api.REPORT_PATH, api.Report).pid]
        for _ in range(3):
            with pytest.raises(Refused) as refused:
                ask(socket, "POST", api.FREE_PATH, api.Freed, FreeRequest(means=Means.EVICT, target_bytes=MB))
            assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (503, "OutOfMemory", "1")
            done = ask(socket, "POST", api.FREE_PATH, api.Freed, FreeRequest(means=Means.EVICT, target_bytes=MB // 64))
            assert done.problem is None
            pids.append(ask(socket, "GET", api.REPORT_PATH, api.Report).pid)
        service.stdin.close()
    assert (set(pids), service.returncode) == ({service.pid}, 0)
    assert next(line.split()[3] for line in limits.splitlines() if line.startswith("Max data")) == str(GUARD)


def test_without_a_variable_nothing_is_limited(tmp_path: Path, found: tuple[tuple[int, int], ...]) -> None:
    """R-E20: by choice."""
    runtime = MemoryRuntime(tmp_path, {})
    during = _limits()
    runtime.close()
    assert during == found


def test_guards_hold_from_start_to_close_and_are_put_back(tmp_path: Path, found: tuple[tuple[int, int], ...]) -> None:
    """R-E20: the soft limits, so that they may be raised again; the hard ones stay."""
    runtime = MemoryRuntime(tmp_path, LARGE)
    during = _limits()
    runtime.close()
    assert during == ((64 << 30, found[0][1]), (1024 << 30, found[1][1]))
    assert _limits() == found


@pytest.mark.parametrize("variable", [DATA, ADDRESS_SPACE])
def test_a_guard_under_what_the_process_has_is_refused(
    tmp_path: Path, variable: str, found: tuple[tuple[int, int], ...]
) -> None:
    """R-E20: the next allocation anywhere would fail, without a word."""
    with pytest.raises(GuardRefused, match=rf"{variable} asks for 1048576 bytes, and the process has \d+ already"):
        MemoryRuntime(tmp_path, {**LARGE, variable: "1Mi"})
    assert _limits() == found


def test_a_guard_over_the_hard_limit_is_refused_and_sets_none(found: tuple[tuple[int, int], ...]) -> None:
    """R-E20: in a process whose administrator has said otherwise."""
    script = (
        "import resource\n"
        "from membudget_runtime.errors import GuardRefused\n"
        "from membudget_runtime.process_guards import ProcessGuards\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "before = resource.getrlimit(resource.RLIMIT_DATA)\n"
        "try:\n"
        f"    ProcessGuards({{{DATA!r}: '1Gi', {ADDRESS_SPACE!r}: '4Gi'}})\n"
        "except GuardRefused as error:\n"
        "    print(error, resource.getrlimit(resource.RLIMIT_DATA) == before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.startswith(f"the kernel refuses {DATA}, {ADDRESS_SPACE}: ")
    assert (done.stdout.endswith(" True\n"), _limits()) == (True, found)


@pytest.mark.parametrize("text", ["", "75%", "1Zi", "-1", "lots"])
def test_a_variable_that_cannot_be_read_is_named(text: str) -> None:
    """R-E20: a typing error is no silent default."""
    with pytest.raises(EnvironmentInvalid) as refused:
        guards_asked({DATA: text})
    assert refused.value.variable == DATA


def test_what_a_guard_counts_is_read_from_the_kernel(tmp_path: Path) -> None:
    """R-E20: unknown is no reason to refuse."""
    own = counted_bytes(GuardKind.DATA)
    assert own is not None
    assert own > 10 * MB
    assert (counted_bytes(GuardKind.ADDRESS_SPACE) or 0) > own
    for text in (None, "", "VmData:\n", "VmData: many kB\n"):
        if text is not None:
            (tmp_path / "status").write_text(text)
        assert counted_bytes(GuardKind.DATA, tmp_path) is None
    ProcessGuards({DATA: "64Gi"}, tmp_path).restore()


def test_a_cache_at_a_guard_refuses_values_and_goes_on_to_serve_and_to_evict(tmp_path: Path) -> None:
    """R-E20: its segments are private memory; where the kernel maps none, nothing breaks half-way."""
    done = subprocess.run(
        [sys.executable, str(LIMITED), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(LIMITED.parents[1])},
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    told = json.loads(done.stdout)
    books = told.pop("books")
    assert (books, told) == (
        [],
        {"refused": True, "wrong": 0, "evicted": True, "again": True, "tiny": True, "left": 0},
    )
