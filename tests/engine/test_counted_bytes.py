"""The bytes that a counted room reports, against those that the kernel charges its process."""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from engine.engine_process import status_bytes

FILL = Path(__file__).with_name("fill_counted.py")
PROCESSES = 3


def filled(folder: Path, entry_bytes: int, entries: int, how: str) -> tuple[int, int]:
    """A fresh process that fills a room: bytes it reports, bytes its RssAnon grew by."""
    argv = [sys.executable, str(FILL), str(folder), str(entry_bytes), str(entries), how]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "empty 0\n"
        before = status_bytes(process.pid, "RssAnon")
        process.stdin.write("\n")
        process.stdin.flush()
        _, reported = process.stdout.readline().split()
        grown = status_bytes(process.pid, "RssAnon") - before
        process.stdin.write("\n")
    return int(reported), grown


@pytest.mark.parametrize(
    ("entry_bytes", "entries", "how"),
    [
        (64, 20_000, "once"),
        (64, 4_000, "churn"),
        (2048, 10_000, "once"),
        (2048, 2_000, "churn"),
        (200_000, 100, "churn"),
        (8_000, 500, "packed"),
        (24_000, 500, "packed"),
    ],
)
def test_reported_bytes_lie_within_a_tenth_of_what_the_kernel_charges(
    tmp_path: Path, entry_bytes: int, entries: int, how: str
) -> None:
    """R-E06, R-E07, R-E22: the mean of fresh processes, each read from outside."""
    runs = [filled(tmp_path / str(run), entry_bytes, entries, how) for run in range(PROCESSES)]
    assert statistics.fmean(reported / grown for reported, grown in runs) == pytest.approx(1.0, abs=0.1)
