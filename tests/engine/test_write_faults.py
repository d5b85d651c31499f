"""Volumes that are full or read-only, and what a sync is: typed errors, and every acknowledged write is there."""

import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from engine.written import Written, notes, written
from membudget_engine.errors import BuildFailed, EngineError, WriteFailed
from memory_cgroup import require
from tracing import required_strace


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 3 MB, really mounted."""
    require(os.geteuid() == 0, "mounting a tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _write_until_refused(opened: Written) -> dict[str, str]:
    """What was acknowledged."""
    acknowledged = dict[str, str]()
    for first in range(0, 100_000, 50):
        batch = notes(range(first, first + 50), "text " * 40)
        try:
            opened.writer.upsert("core", batch)
        except WriteFailed:
            return acknowledged
        acknowledged |= {chunk.id: chunk.source for chunk in batch}
    raise AssertionError("a disk of 3 MB took 100,000 chunks")


def test_on_a_full_volume_a_write_is_refused_whole_and_nothing_is_lost(small_disk: Path, tmp_path: Path) -> None:
    """R-E18, fault 71: refused, not seen by queries, and taken when there is room again."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * 1024))
    with written(small_disk / "data", tmp_path / "state") as opened:
        expected = _write_until_refused(opened)
        assert expected == opened.texts("core")
        with pytest.raises(BuildFailed, match="full"):
            opened.writer.seal("core")
        with pytest.raises(WriteFailed):
            opened.writer.upsert("core", notes(range(50), "refused" * 400))
        assert expected == opened.texts("core")
    with written(small_disk / "data", tmp_path / "state") as again:
        assert expected == again.texts("core")
        ballast.unlink()
        again.writer.upsert("core", notes(range(3), "room"))
        assert {**expected, **{f"note-{n}": f"room {n}" for n in range(3)}} == again.texts("core")
        assert again.writer.delete("core", ["note-5"]) == 1


def test_a_volume_mounted_read_only_is_served_and_writes_are_refused(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 73: with the reason; mounted for writing again, the next write is taken without a restart."""
    with written(small_disk / "data", tmp_path / "state") as opened:
        opened.writer.upsert("core", notes(range(10), "first"))
        opened.writer.upsert("core", notes(range(2), "second"))
        opened.writer.seal("core")
        expected = opened.texts("core")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with written(small_disk / "data", tmp_path / "state") as opened:
        assert expected == opened.texts("core")
        assert "without what was written" in caplog.text
        with pytest.raises((EngineError, OSError), match=r"read-only|readonly"):
            opened.writer.upsert("core", notes(range(2), "third"))
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        opened.writer.upsert("core", notes(range(2), "third"))
        assert opened.texts("core")["note-1"] == "third 1"


_SYNCED = """
import os, sys
from pathlib import Path
from engine.written import notes, written
folder = Path(sys.argv[1])
with written(folder / "data", folder / "state") as opened:
    opened.writer.upsert("core", notes(range(3), "made"))
    for number in range(5):
        os.write(1, b"asked\\n")
        opened.writer.upsert("core", notes(range(number, number + 1), "text"))
        os.write(1, b"acknowledged\\n")
    os.write(1, b"ended\\n")
"""


def test_every_acknowledgement_comes_after_a_sync_of_the_log(tmp_path: Path) -> None:
    """Bug 14: SIGKILL leaves the page cache alone, a power cut does not; so the calls to the kernel are read."""
    read = ["-f", "-y", "-e", "trace=write,fdatasync,fsync"]
    argv = [required_strace(), *read, sys.executable, "-c", _SYNCED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    traced = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stderr
    seen = re.findall(r'write\(1.*?"(asked|acknowledged|ended)|(f(?:data)?sync)\(\d+<[^>]*writes\.sqlite-wal>', traced)
    calls = [word or "sync" for word, _ in seen]
    writes = " ".join(calls[calls.index("asked") : calls.index("ended")])
    assert re.fullmatch(r"(asked( sync)+ acknowledged ?){5}", writes), writes
