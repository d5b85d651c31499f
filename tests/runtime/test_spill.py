import os
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.engine_process import wait_until
from loop_volume import bytes_written, make_image, mounted, require_loop_devices
from membudget_runtime.errors import SpillDamaged, SpillFailed
from membudget_runtime.spill import BATCH_BYTES, MAGIC, SpillStore
from memory_cgroup import require

MB = 1024 * 1024
own_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 64 kB, really mounted."""
    require(os.geteuid() == 0, "mounting a tmpfs needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@own_folder
@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=20))
def test_records_come_back_as_they_were_and_leave_nothing(tmp_path: Path, records: list[bytes]) -> None:
    """R-E13: any bytes, also none."""
    store = SpillStore(tmp_path, MB)
    places = store.write(records)
    size = len(MAGIC) + sum(map(len, records))
    assert ([store.read(place) for place in places], store.used_bytes) == (records, size)
    for place in places:
        store.release(place)
    assert (list(tmp_path.iterdir()), store.used_bytes) == ([], 0)


@own_folder
@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5), st.data())
def test_a_flipped_bit_is_never_read_as_data(tmp_path: Path, records: list[bytes], data: st.DataObject) -> None:
    """R-E13: the record is damaged, its neighbours are not."""
    store = SpillStore(tmp_path, MB)
    places = store.write(records)
    path = places[0].batch.path
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(len(MAGIC), len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    for place, record in zip(places, records, strict=True):
        if place.offset <= position < place.offset + place.length:
            with pytest.raises(SpillDamaged, match="fails its checksum"):
                store.read(place)
        else:
            assert store.read(place) == record
        store.release(place)


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    """R-E13: refused before anything is written; released bytes count no more."""
    store = SpillStore(tmp_path, 100)
    (place,) = store.write([bytes(60)])
    with pytest.raises(SpillFailed, match="holds 68 of 100 bytes, 48 more asked"):
        store.write([bytes(40)])
    store.release(place)
    assert (len(store.write([bytes(92)])), store.used_bytes) == (1, 100)


def test_a_full_disk_refuses_the_batch_and_leaves_no_half_of_it(tiny_disk: Path) -> None:
    """R-E13: the kernel's own ENOSPC; what fits afterwards is taken."""
    store = SpillStore(tiny_disk, MB)
    with pytest.raises(SpillFailed, match="No space left on device"):
        store.write([bytes(40_000), bytes(40_000)])
    found = (list(tiny_disk.iterdir()), store.used_bytes)
    (place,) = store.write([b"fits"])
    assert (found, store.read(place)) == (([], 0), b"fits")


class Failing(list[bytes]):
    """Records that can be walked so many times, and no more."""

    walks = 0

    def __iter__(self) -> Iterator[bytes]:
        self.walks -= 1
        if self.walks < 0:
            raise MemoryError
        return super().__iter__()


@pytest.mark.parametrize("walks", [0, 1])
def test_a_batch_that_ran_out_of_memory_leaves_the_account_as_it_was(tmp_path: Path, walks: int) -> None:
    """R-E13: else the bound of the folder would fall with each of them."""
    store, records = SpillStore(tmp_path, 100), Failing([bytes(92)])
    records.walks = walks
    with pytest.raises(MemoryError):
        store.write(records)
    assert (store.used_bytes, list(tmp_path.iterdir()), len(store.write([bytes(92)]))) == (0, [], 1)


class Awaiting(list[bytes]):
    """What follows its first record comes when a condition holds."""

    def __init__(self, records: Iterable[bytes], condition: Callable[[], bool]) -> None:
        super().__init__(records)
        self._condition = condition

    def __getitem__(self, index: Any) -> Any:
        if index != slice(0, 1):
            wait_until(self._condition)
        return cast("list[bytes]", super().__getitem__(index))


def test_the_disk_is_at_work_while_more_is_written(tmp_path: Path) -> None:
    """R-E13: by the count of a disk of its own; else all of it would wait for the sync."""
    require_loop_devices()
    image, folder = tmp_path / "image", tmp_path / "volume"
    make_image(image, 64 * MB)
    record = os.urandom(BATCH_BYTES)
    with mounted(image, folder, "noatime", past_the_page_cache=True) as device:
        store, before = SpillStore(folder, 32 * MB), bytes_written(device)
        places = store.write(Awaiting([record] * 2, lambda: bytes_written(device) - before >= BATCH_BYTES))
        assert [store.read(place) for place in places] == [record] * 2


def test_batches_of_an_earlier_process_go_and_nothing_else(tmp_path: Path) -> None:
    """R-E13: only names of our own making."""
    for name in ("batch-1-1", "batch-77-3.part", "batch-1-1.bak", "notes.txt", "batch-x-1"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "batch-2-2").symlink_to(tmp_path / "notes.txt")
    SpillStore(tmp_path, MB)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch-1-1.bak", "batch-x-1", "notes.txt"]


def test_a_link_in_place_of_a_batch_is_not_followed(tmp_path: Path) -> None:
    """R-E13: neither when read, although the bytes behind it are right, nor when written."""
    store = SpillStore(tmp_path, MB)
    (place,) = store.write([b"value"])
    moved = place.batch.path.rename(tmp_path / "elsewhere")
    place.batch.path.symlink_to(moved)
    with pytest.raises(SpillDamaged):
        store.read(place)
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / f"batch-{os.getpid()}-2.part").symlink_to(victim)
    with pytest.raises(SpillFailed):
        store.write([b"value"])
    assert victim.read_bytes() == b"untouched"


def test_a_file_that_vanished_is_damage_and_its_bytes_come_back(tmp_path: Path) -> None:
    """R-E13: someone cleaned the folder."""
    store = SpillStore(tmp_path, MB)
    (place,) = store.write([b"value"])
    place.batch.path.unlink()
    with pytest.raises(SpillDamaged, match="No such file"):
        store.read(place)
    store.release(place)
    assert store.used_bytes == 0


def test_a_folder_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    """R-E13: not at the first emergency."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpillFailed, match="cannot be used: Not a directory"):
        SpillStore(tmp_path / "file" / "spill", MB)


def test_spilled_values_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """R-E13: folder 0700, batches 0600."""
    store = SpillStore(tmp_path / "spill", MB)
    (place,) = store.write([b"value"])
    assert (store.folder.stat().st_mode & 0o777, place.batch.path.stat().st_mode & 0o777) == (0o700, 0o600)
