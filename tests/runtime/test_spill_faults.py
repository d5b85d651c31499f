"""What a disk may do to the spill folder: typed errors, nothing lost, nothing followed.

The file systems are real and small; errors that no file system here can be made to give are put in by strace.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from membudget_contract.control_api import FreeRequest, Means
from membudget_contract.policy import Priority
from membudget_runtime.cache import BoundedCache
from membudget_runtime.errors import SpillDamaged, SpillFailed, SpillUnread
from membudget_runtime.ledger import Ledger
from membudget_runtime.packing import INFLATED_AT_MOST, packed, unpacked_from_disk
from membudget_runtime.reclaim import Reclaimer
from membudget_runtime.spill import SpillPlace, SpillStore
from memory_cgroup import require
from runtime.fakes import MB, RANKING, HandClock, ledger_of, start
from tracing import required_strace

SPILLING = Path(__file__).with_name("spilling_process.py")
LEFTOVERS = 100_000
LEFTOVERS_SECONDS = 5.0


@contextmanager
def mounted(folder: Path, options: str) -> Generator[Path]:
    """A tmpfs with these options."""
    require(os.geteuid() == 0, "mounting a tmpfs needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def filled(folder: Path, count: int = 60) -> tuple[BoundedCache[int], Ledger, dict[int, bytes]]:
    """A cache of Low values that do not compress, 20 kB each, in a folder to spill to."""
    ledger, _ = ledger_of(ceilings={"cache": 64 * MB})
    cache: BoundedCache[int] = BoundedCache(
        "cache", ledger, ttl_seconds=1e9, clock=HandClock(), spill=SpillStore(folder, 64 * MB)
    )
    model = {number: os.urandom(20_000) for number in range(count)}
    for key, value in model.items():
        assert cache.put(key, value, "low")
    return cache, ledger, model


def found(cache: BoundedCache[int], model: dict[int, bytes]) -> bool:
    """Whether every value is what it was."""
    return {key: cache.get("low", key) for key in model} == model


def spill_all(ledger: Ledger) -> str | None:
    """One action of the ladder; its problem."""
    return Reclaimer(ledger, start()).free(FreeRequest(means=Means.SPILL, target_bytes=64 * MB)).problem


def test_a_full_disk_keeps_the_values_in_memory_and_eviction_goes_on(tmp_path: Path) -> None:
    """R-E13, fault 71: the action says so, no part of a file is left, the next rung finds them evictable."""
    with mounted(tmp_path / "tiny", "size=64k") as folder:
        cache, ledger, model = filled(folder)
        problem = spill_all(ledger)
        assert problem is not None
        assert problem.endswith("was not written: No space left on device")
        assert (list(folder.iterdir()), cache.spilled_bytes(), found(cache, model)) == ([], 0, True)
        freed = Reclaimer(ledger, start()).free(FreeRequest(means=Means.EVICT, target_bytes=64 * MB))
        assert (freed.entries, freed.problem, freed.exhausted) == (60, None, True)


def test_a_disk_that_became_read_only_still_gives_what_it_has(tmp_path: Path) -> None:
    """R-E13, fault 73: what was spilled is read, what was not stays; later it is taken again."""
    with mounted(tmp_path / "disk", "size=8m") as folder:
        cache, ledger, model = filled(folder)
        cache.spill(1, Priority.LOW, RANKING)
        before = cache.spilled_bytes()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        problem = spill_all(ledger)
        assert problem is not None
        assert "Read-only file system" in problem
        assert (cache.spilled_bytes(), before > 0, found(cache, model)) == (before, True, True)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        assert (spill_all(ledger), found(cache, model)) == (None, True)


def test_a_file_system_without_inodes_refuses_and_takes_again_when_there_are_some(tmp_path: Path) -> None:
    """R-E13, fault 77: one inode is the folder's, one the first batch's."""
    with mounted(tmp_path / "disk", "size=8m,nr_inodes=2") as folder:
        store = SpillStore(folder, MB)
        (place,) = store.write([b"first"])
        with pytest.raises(SpillFailed, match="No space left on device"):
            store.write([b"second"])
        assert (store.read(place), store.used_bytes) == (b"first", 13)
        store.release(place)
        assert store.read(store.write([b"third"])[0]) == b"third"


def test_out_of_descriptors_is_a_miss_for_now_and_loses_nothing(tmp_path: Path) -> None:
    """R-E13, fault 78: neither written nor read, and both again afterwards."""
    cache, ledger, model = filled(tmp_path)
    cache.spill(1, Priority.LOW, RANKING)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1, hard))
    taken: list[int] = []
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        misses = [key for key in model if cache.get("low", key) is None]
        problem = spill_all(ledger)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    assert problem is not None
    assert "Too many open files" in problem
    assert (len(misses) > 0, cache.counters.damaged, len(cache), found(cache, model)) == (True, 0, 60, True)


def test_a_folder_that_was_removed_costs_what_was_in_it_and_is_made_anew(tmp_path: Path) -> None:
    """R-E13, fault 79: misses that are counted; what is in memory stays and is spilled again."""
    folder = tmp_path / "spill"
    cache, ledger, model = filled(folder)
    cache.spill(1, Priority.LOW, RANKING)
    shutil.rmtree(folder)
    kept = {key: value for key, value in model.items() if cache.get("low", key) is not None}
    assert 0 < len(kept) < len(model)
    assert (cache.counters.damaged, len(cache)) == (len(model) - len(kept), len(kept))
    assert (spill_all(ledger), found(cache, kept)) == (None, True)


def test_many_leftovers_are_gone_soon(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E13, fault 80: 100,000 batches of a process that was killed."""
    with mounted(tmp_path / "disk", "size=512m,nr_inodes=0") as folder:
        for number in range(LEFTOVERS):
            os.close(os.open(folder / f"batch-1-{number}", os.O_CREAT | os.O_WRONLY))
        started = time.monotonic()
        SpillStore(folder, MB)
        publish(f"{LEFTOVERS} leftovers in the spill folder: gone in {time.monotonic() - started:.2f} s")
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["x" * 250] * 20)], ids=["one name", "whole path"])
def test_a_name_that_is_too_long_is_said_at_the_start(tmp_path: Path, name: str) -> None:
    """R-E13, fault 120: of a folder, and of a whole path."""
    with pytest.raises(SpillFailed, match="cannot be used: File name too long"):
        SpillStore(tmp_path / name, MB)


def test_a_path_that_leaves_no_room_for_a_file_name_keeps_the_values(tmp_path: Path) -> None:
    """R-E13, fault 120: the folder can be made, its files cannot."""
    folder = tmp_path
    while len(str(folder)) < 4096 - 20:
        folder /= "x" * min(200, 4096 - 12 - len(str(folder)))
    store = SpillStore(folder, MB)
    with pytest.raises(SpillFailed, match="File name too long"):
        store.write([b"value"])
    assert store.used_bytes == 0


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "hard link"])
def test_nothing_that_lies_under_the_name_of_a_batch_is_followed(tmp_path: Path, kind: str) -> None:
    """R-E13, fault 119: neither at the start nor in place of one that was written; nothing waits for a pipe."""
    folder, elsewhere = tmp_path / "spill", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_bytes(b"MBSPILL1other")
    make: dict[str, Callable[[Path], object]] = {
        "link": lambda path: path.symlink_to(elsewhere),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "hard link": lambda path: path.hardlink_to(elsewhere),
    }
    make[kind](folder / "batch-1-1")
    store = SpillStore(folder, MB)
    (place,) = store.write([b"value"])
    place.batch.path.unlink()
    make[kind](place.batch.path)
    with pytest.raises(SpillDamaged):
        store.read(place)
    store.release(place)
    assert elsewhere.read_bytes() == b"MBSPILL1other"


def test_a_bomb_in_place_of_a_value_inflates_to_a_bound_and_is_damage() -> None:
    """R-E13, fault 117: also where its checksum is right; a value of that size is not compressed in the first place."""
    bomb = zlib.compress(bytes(INFLATED_AT_MOST + 1), 9)
    for stored in (bomb, b"no compressed bytes", packed(bytes(5000))[:-1]):
        with pytest.raises(SpillDamaged):
            unpacked_from_disk(stored)
    large = bytes(INFLATED_AT_MOST + 1)
    assert packed(large) is large
    assert unpacked_from_disk(packed(bytes(5000))) == bytes(5000)


def spilled_under_strace(folder: Path, *options: str) -> tuple[str, list[str]]:
    """What `spilling_process` said, and its calls."""
    log = folder.with_name("calls")
    argv = [required_strace(), "-f", "-q", "-o", str(log), *options, sys.executable, str(SPILLING), str(folder)]
    run = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return run.stdout, log.read_text(encoding="utf-8", errors="replace").splitlines()


def test_a_batch_whose_sync_failed_is_written_anew_and_never_synced_again(tmp_path: Path) -> None:
    """R-E13, fault 75: the kernel may have dropped its pages, so a second fsync would lie."""
    said, calls = spilled_under_strace(
        tmp_path / "spill", "-e", "trace=fsync,openat", "-e", "inject=fsync:error=EIO:when=1"
    )
    written = [call for call in calls if "batch-" in call and "O_CREAT" in call]
    assert said == "spilled Input/output error\nagain None\nfound 20 damaged 0\n"
    assert (len(written), sum("fsync(" in call for call in calls)) == (2, 2)
    assert len({call.split('"')[1] for call in written}) == 2
    assert not [path for path in (tmp_path / "spill").iterdir() if path.suffix == ".part"]


def test_a_read_that_fails_is_a_miss_and_never_data(tmp_path: Path) -> None:
    """R-E13, fault 74: of one value, counted; its neighbours in the same batch come back."""
    said, calls = spilled_under_strace(tmp_path / "spill", "-e", "trace=pread64")
    first = next(number for number, call in enumerate(calls, 1) if "20000, " in call)
    assert said == "spilled None\nagain None\nfound 20 damaged 0\n"
    said, _ = spilled_under_strace(
        tmp_path / "again", "-e", "trace=pread64", "-e", f"inject=pread64:error=EIO:when={first}"
    )
    assert said == "spilled None\nagain None\nfound 19 damaged 1\n"


def test_a_slow_sync_holds_up_nobody_else(tmp_path: Path) -> None:
    """R-E13, fault 76: values are read and put while a batch is written, without waiting for it."""
    entered, may_go_on = threading.Event(), threading.Event()

    class Slow(SpillStore):
        def write(self, records: Sequence[bytes | memoryview]) -> list[SpillPlace]:
            entered.set()
            assert may_go_on.wait(timeout=20)
            return super().write(records)

    ledger, _ = ledger_of(ceilings={"cache": 64 * MB})
    cache: BoundedCache[int] = BoundedCache(
        "cache", ledger, ttl_seconds=1e9, clock=HandClock(), spill=Slow(tmp_path, 64 * MB)
    )
    values = {number: random.Random(number).randbytes(5000) for number in range(50)}
    for key, value in values.items():
        cache.put(key, value, "low")
    spilling = threading.Thread(target=lambda: cache.spill(MB, Priority.LOW, RANKING))
    spilling.start()
    assert entered.wait(timeout=20)
    assert found(cache, values)
    assert cache.put(7, b"new", "low")
    may_go_on.set()
    spilling.join(timeout=20)
    assert (cache.get("low", 7), found(cache, values | {7: b"new"})) == (b"new", True)


def test_what_cannot_be_read_now_is_told_apart_from_damage() -> None:
    """R-E13: one is tried again, the other is gone."""
    assert not issubclass(SpillUnread, SpillDamaged)
