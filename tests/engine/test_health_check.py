"""The health command: its exit codes are all that whoever runs containers knows of an engine."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.engine_process import EngineProcess, wait_until
from membudget_contract.quantities import MIB


def check(*arguments: str) -> tuple[int, str]:
    """Exit code and what was written."""
    command = [sys.executable, "-m", "membudget_engine", "check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_an_engine_that_serves_is_ready_and_one_that_is_frozen_or_gone_is_not(small_data: Path, tmp_path: Path) -> None:
    """R-T05: 0 while it can be asked, 1 with the reason otherwise, also where the kernel still takes connections."""
    with EngineProcess(small_data, tmp_path) as engine:
        engine.wait_until_serving()
        port = f"--port={engine.port}"
        assert (0, "ready") == check(port)
        engine.process.send_signal(signal.SIGSTOP)
        assert (1, f"nobody answers at 127.0.0.1:{engine.port}: timed out") == check(port)
        engine.process.send_signal(signal.SIGCONT)
        wait_until(lambda: check(port)[0] == 0)
        engine.terminate()
        code, told = check(port)
        assert (1, True) == (code, told.startswith(f"nobody answers at 127.0.0.1:{engine.port}"))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "says 503 Service Unavailable"),
        (b"HTTP/1.1 2000 Odd\r\n\r\n", "says 2000 Odd"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no engine"),
        (b"", "is no engine"),
    ],
)
def test_what_answers_otherwise_is_not_ready(answer: bytes, told: str) -> None:
    """R-T05: an engine that stops, and something that is none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer_once, args=(listener, answer), daemon=True).start()
        code, line = check(f"--port={listener.getsockname()[1]}")
    assert (1, True) == (code, line.endswith(told))


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    with listener.accept()[0] as connection:
        connection.recv(4096)
        connection.sendall(answer)


@pytest.mark.parametrize("wrong", [["--port=http"], ["--port=70000"], ["--data=x"], ["now"]])
def test_wrong_arguments_are_neither(wrong: list[str]) -> None:
    """R-T05: a health command that is misspelled must not look like an engine that is ill."""
    assert 2 == check(*wrong)[0]


def test_the_command_is_small_beside_the_engine(publish: Callable[[str], None]) -> None:
    """R-T05: it runs every few seconds inside the engine's own limit, so it imports neither numpy nor a server."""
    script = (
        "import sys; from membudget_engine.__main__ import main; main(['check', '--port=9']); "
        "print(*sys.modules); print(open('/proc/self/status').read())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    _, modules, *status = done.stdout.splitlines()
    heavy = {"numpy", "faiss", "starlette", "uvicorn", "asyncio", "http.client", "ssl", "msgspec"}
    assert set() == heavy & set(modules.split())
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    publish(f"membudget-engine check: peak resident memory {peak / MIB:.1f} MiB")
