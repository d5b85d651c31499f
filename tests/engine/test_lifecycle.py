"""Starting and stopping real engines: what a signal does at any moment, and what stands in the way of a start."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.engine_process import START_SECONDS, STOP_SECONDS, EngineProcess, Reply, ask, search_body, wait_until
from membudget_contract.control_api import REPORT_PATH
from tracing import required_strace

QUERY = search_body("open a stream reader")
BEGUN = b"POST /v1/search HTTP/1.1\r\nHost: engine\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"


def _last_line(engine: EngineProcess) -> str:
    return engine.log.splitlines()[-1]


def _refusal(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json()["reason"]


def test_sigterm_ends_with_code_0_within_5_seconds_and_takes_the_socket_away(small_data: Path, tmp_path: Path) -> None:
    """R-E17: graceful shutdown."""
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        assert engine.search("open a stream reader").status == 200
        assert (engine.run / "engine.sock").is_socket()

        assert engine.terminate() == 0

        assert not (engine.run / "engine.sock").exists()
        assert _last_line(engine).endswith("INFO stopped")
        with pytest.raises(ConnectionRefusedError):
            engine.ask("GET", "/healthz")


def test_a_query_that_had_begun_is_answered_and_later_ones_are_refused(small_data: Path, tmp_path: Path) -> None:
    """R-E17: while stopping the engine is alive but not ready, and says so instead of resetting connections."""
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        with socket.create_connection(("127.0.0.1", engine.port), timeout=STOP_SECONDS) as begun:
            begun.sendall(BEGUN % len(QUERY))
            # The engine asks for the body: it has taken the query on.
            assert begun.recv(1024).startswith(b"HTTP/1.1 100 ")
            assert engine.ask("GET", "/readyz").status == 200
            engine.process.send_signal(signal.SIGTERM)

            wait_until(lambda: engine.ask("GET", "/readyz").status == 503)
            assert _refusal(engine.search("open a stream reader")) == (503, "Stopping")
            assert _refusal(engine.ask("GET", "/v1/chunks/small/0123456789abcdef")) == (503, "Stopping")
            assert engine.ask("GET", "/healthz").status == 200
            begun.sendall(QUERY)

            assert begun.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert engine.process.wait(timeout=STOP_SECONDS) == 0
        assert "Traceback" not in engine.log


def test_an_idle_connection_that_is_kept_alive_does_not_delay_the_stop(small_data: Path, tmp_path: Path) -> None:
    """R-E17: agents keep theirs open."""
    with EngineProcess(small_data, tmp_path) as engine:
        connection = engine.wait_until_serving().connect()
        assert ask(connection, "POST", "/v1/search", QUERY).status == 200

        assert engine.terminate() == 0
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after_ms", [0, 80, 180, 280, 380])
def test_a_signal_during_start_up_ends_it_without_a_traceback(
    small_data: Path, tmp_path: Path, number: signal.Signals, after_ms: int
) -> None:
    """R-E17: at whichever moment it comes, no signal is lost and no socket is left."""
    with EngineProcess(small_data, tmp_path) as engine:
        # Before Python itself is up, the signal's default action is right.
        wait_until(lambda: _handles_sigterm(engine.process.pid))
        time.sleep(after_ms / 1000)  # hides no race: it spreads the moments, and each of them must do

        engine.process.send_signal(number)

        assert engine.process.wait(timeout=STOP_SECONDS) == 0
        assert "Traceback" not in engine.log
        assert not (engine.run / "engine.sock").exists()
        assert "stopped" in _last_line(engine)


def test_a_signal_while_the_control_socket_opens_leaves_no_file_of_it(small_data: Path, tmp_path: Path) -> None:
    """R-E17: in the call that comes after its file is there, before anybody could close it."""
    run = tmp_path / "run"
    at_its_mode = ["-P", str(run / "engine.sock"), "-e", "inject=chmod,fchmodat:signal=SIGTERM"]
    argv = [required_strace(), "-f", "-qq", "-o", os.devnull, *at_its_mode, sys.executable, "-m", "membudget_engine"]
    argv += ["serve", "--port", "0", "--data", str(small_data), "--state", str(tmp_path), "--run", str(run)]

    ended = subprocess.run(argv, capture_output=True, text=True, timeout=START_SECONDS, check=False)

    assert (0, False) == (ended.returncode, (run / "engine.sock").exists()), ended.stderr
    assert ended.stderr.splitlines()[-1].endswith("INFO stopped")


def _handles_sigterm(pid: int) -> bool:
    """Whether the kernel knows a handler for it; the engine sets this one last."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    caught = int(next(line.split()[1] for line in lines if line.startswith("SigCgt:")), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_a_second_engine_on_the_same_run_folder_is_refused_with_one_line(small_data: Path, tmp_path: Path) -> None:
    """R-E23: one engine per control socket; the first one goes on."""
    with EngineProcess(small_data, tmp_path / "first") as first:
        first.wait_until_serving()
        with EngineProcess(small_data, tmp_path / "second", run=first.run) as second:
            assert second.process.wait(timeout=30.0) == 1

            assert second.log.splitlines() == [
                f"membudget-engine: another process serves {first.run}/engine.sock; one engine per control socket"
            ]
        assert first.search("open a stream reader").status == 200
        assert _report_status(first) == 200


def _report_status(engine: EngineProcess) -> int:
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(engine.run / "engine.sock"))
        control.sendall(f"GET {REPORT_PATH} HTTP/1.1\r\nHost: engine\r\n\r\n".encode())
        return int(control.recv(1024).split()[1])


def test_a_second_engine_leaves_the_spilled_values_of_the_first_alone(small_data: Path, tmp_path: Path) -> None:
    """R-E13: a spill folder is emptied at start, so it must be nobody else's."""
    with EngineProcess(small_data, tmp_path) as first:
        first.wait_until_serving()
        spilled = tmp_path / "state" / "spill" / "batch-1-1"
        spilled.write_bytes(b"MBSPILL1 of the first")
        with EngineProcess(small_data, tmp_path, run=tmp_path / "other-run") as second:
            assert second.process.wait(timeout=30.0) == 1

            assert second.log.splitlines() == [
                f"membudget-engine: another process uses {tmp_path}/state; one engine per state folder"
            ]
        assert spilled.exists()


def test_after_sigkill_the_next_start_serves(small_data: Path, tmp_path: Path) -> None:
    """R-E17: a socket file of a dead engine stands in nobody's way."""
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        engine.process.kill()
        engine.process.wait()
    assert (tmp_path / "run" / "engine.sock").exists()

    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()

        assert engine.search("open a stream reader").status == 200
        assert _report_status(engine) == 200


def test_a_port_in_use_is_told_in_one_line(small_data: Path, tmp_path: Path) -> None:
    """R-E17: exit code 1, and the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with EngineProcess(small_data, tmp_path, port=port) as engine:
            assert engine.process.wait(timeout=30.0) == 1

            assert engine.log.splitlines() == [f"membudget-engine: [Errno 98] 127.0.0.1:{port}: Address already in use"]
    assert not (tmp_path / "run" / "engine.sock").exists()


def test_nothing_to_serve_is_told_in_one_line_with_the_command_that_helps(tmp_path: Path) -> None:
    """R-E17: exit code 1."""
    with EngineProcess(tmp_path / "data", tmp_path) as engine:
        assert engine.process.wait(timeout=30.0) == 1

        assert engine.log == (
            f"membudget-engine: no collection with a good generation in {tmp_path}/data; "
            f"make one: membudget-engine build --data {tmp_path}/data --source stdlib\n"
        )


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_a_wrong_argument(tmp_path: Path, port: str) -> None:
    """R-T03: exit code 2, as for every wrong argument."""
    argv = [sys.executable, "-m", "membudget_engine", "serve", "--data", str(tmp_path), "--state", str(tmp_path)]
    ended = subprocess.run([*argv, f"--port={port}"], capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert "--port" in ended.stderr
