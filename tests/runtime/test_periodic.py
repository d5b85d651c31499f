"""A small thing every so many seconds: it goes on after a failure, and ends at once."""

import threading
import time

import pytest

from membudget_runtime.periodic import Periodic


def test_it_goes_on_after_a_failure_and_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """R-E09: a cleanup that failed once must not be the last one; a stop does not wait for the period."""
    runs = threading.Semaphore(0)

    def work() -> None:
        runs.release()
        raise ArithmeticError("once more")

    periodic = Periodic("cleanup", 0.001, work)
    for _ in range(3):
        assert runs.acquire(timeout=10)
    periodic.close()
    assert "cleanup failed" in caplog.text
    started = time.monotonic()
    Periodic("cleanup", 3600.0, work).close()
    assert time.monotonic() - started < 60
