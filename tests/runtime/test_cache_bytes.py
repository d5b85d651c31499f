import statistics
import subprocess
import sys
from pathlib import Path

import pytest

FILL = Path(__file__).with_name("fill_cache.py")
TOTAL_BYTES = 40 * 1024 * 1024
PROCESSES = 3


def filled(folder: Path, entry_bytes: int, how: str = "once") -> tuple[int, int, int]:
    """A fresh process that fills a cache: bytes it reports, bytes its RssAnon grew by, entries it was given."""
    argv = [sys.executable, str(FILL), str(folder), str(entry_bytes), str(TOTAL_BYTES), how]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "empty\n"
        before = anonymous_bytes(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        _, reported, entries = process.stdout.readline().split()
        grown = anonymous_bytes(process.pid) - before
        process.stdin.write("\n")
    return int(reported), grown, int(entries)


def anonymous_bytes(pid: int) -> int:
    """As the kernel shows it to another process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.parametrize("entry_bytes", [64, 2048, 100 * 1024])
def test_reported_bytes_lie_within_a_tenth_of_what_the_kernel_charges(tmp_path: Path, entry_bytes: int) -> None:
    """R-E02: the mean of fresh processes, each read from outside."""
    runs = [filled(tmp_path / str(run), entry_bytes) for run in range(PROCESSES)]
    assert statistics.fmean(reported / grown for reported, grown, _ in runs) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("how", "entry_bytes"),
    [("churn", 64), ("churn", 2048), ("hot", 64), ("long-keys", 5000), ("long-keys", 1024 * 1024)],
)
def test_reported_bytes_stay_true_when_entries_come_and_go(tmp_path: Path, how: str, entry_bytes: int) -> None:
    """R-E02: what left must leave nothing behind that is not counted, and a long key counts as what it is."""
    reported, grown, _ = filled(tmp_path, entry_bytes, how)
    assert reported / grown == pytest.approx(1.0, abs=0.1)


def test_counting_only_the_values_would_miss_most_of_a_small_entry(tmp_path: Path) -> None:
    """R-E02: the check above tells an honest figure from `sys.getsizeof` of the value."""
    _, grown, entries = filled(tmp_path, 64)
    assert entries * sys.getsizeof(bytes(64)) / grown < 0.5
