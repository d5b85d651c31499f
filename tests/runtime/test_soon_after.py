"""Work some seconds after it was asked for; and the bytes of a finished operation, as another process reads them."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from membudget_runtime.soon_after import SoonAfter
from runtime.fakes import MB

OPERATION = Path(__file__).with_name("finished_operation.py")


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def test_all_who_asked_meanwhile_are_served_at_once() -> None:
    """R-E09: a hundred releases are one trim, or two where the last came while the first was done."""
    done = threading.Semaphore(0)
    with closing(SoonAfter("trim", 0.05, done.release)) as soon:
        for _ in range(100):
            soon.ask()
        assert done.acquire(timeout=60)
        first = time.monotonic()
        soon.ask()
        assert done.acquire(timeout=60)
        assert time.monotonic() >= first
    rest = 0
    while done.acquire(blocking=False):
        rest += 1
    assert rest <= 1


def test_who_asks_is_served_after_the_period_not_before() -> None:
    """R-E09: the owner frees what he held in it, after the release too; others who keep asking put nothing off."""
    moments: list[float] = []
    done = threading.Semaphore(0)

    def work() -> None:
        moments.append(time.monotonic())
        done.release()

    with closing(SoonAfter("trim", 0.2, work)) as soon:
        asked = time.monotonic()
        soon.ask()
        while not done.acquire(timeout=0.01):
            soon.ask()
            assert time.monotonic() < asked + 60
    assert moments[0] - asked >= 0.2


def test_a_failure_is_not_the_last_time(caplog: pytest.LogCaptureFixture) -> None:
    """R-E09: as with any work that others wait for."""
    done = threading.Semaphore(0)

    def work() -> None:
        done.release()
        raise ArithmeticError("once more")

    with closing(SoonAfter("trim", 0.001, work)) as soon:
        for _ in range(3):
            soon.ask()
            assert done.acquire(timeout=60)
    assert "trim failed" in caplog.text


def test_nobody_asked_is_no_thread_and_the_end_waits_for_no_period() -> None:
    """R-E09: a service without grants pays nothing."""
    before = threading.active_count()
    quiet = SoonAfter("trim", 3600.0, list[int])
    assert threading.active_count() == before
    quiet.close()
    started = time.monotonic()
    asked = SoonAfter("trim", 3600.0, list[int])
    asked.ask()
    asked.close()
    asked.ask()
    assert (threading.active_count(), time.monotonic() - started < 60) == (before, True)


def test_the_bytes_of_a_finished_operation_are_back_with_the_kernel_by_themselves(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E09: within 5 s, at least 95 %, whichever threads allocated; another process reads, nobody asks for a trim."""
    argv = [sys.executable, str(OPERATION), str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        read: dict[str, int] = {}
        for name in ("started", "filled", "released"):
            assert service.stdout.readline() == name + "\n"
            read[name] = anonymous_bytes(service.pid)
            if name != "released":
                service.stdin.write("go on\n")
                service.stdin.flush()
        released = time.monotonic()
        grown = read["filled"] - read["started"]
        while anonymous_bytes(service.pid) > read["filled"] - 0.95 * grown:
            assert time.monotonic() < released + 60
            time.sleep(0.01)
        seconds = time.monotonic() - released
        service.stdin.close()
    publish(f"{grown / MB:.0f} MiB of a finished operation: 95 % back after {seconds:.1f} s (5 s promised)")
    assert (grown > 35 * MB, service.returncode) == (True, 0)
