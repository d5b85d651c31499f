"""A file of entries: what was written comes back, and what is torn, changed or foreign is refused whole."""

import os
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membudget_runtime.entry_file import KeptEntry, read_entries, write_entries
from membudget_runtime.errors import EntriesDamaged, SpillUnread

own_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def entry_of(value: bytes, *, packed: bool, **others: Any) -> KeptEntry:
    """As a cache keeps it."""
    return KeptEntry(stored=zlib.compress(value) if packed else value, packed=packed, **others)


entries = st.lists(
    st.builds(
        entry_of,
        collection=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        key=st.binary(max_size=40),
        value=st.binary(max_size=3000),
        packed=st.booleans(),
        seconds_left=st.floats(0, 1e6),
        attachment=st.binary(max_size=100),
        uses=st.integers(0, 1 << 32 - 1),
    ),
    max_size=20,
)

ONE = KeptEntry("core", b"key", b"value", packed=False, seconds_left=60.0, attachment=b"vector")

FORMER = (
    "4d42454e545259310000000000408f409252182200040000000300000005000000060000000000000000004e40636f72656b657976616c"
    "7565766563746f72607f537802010000000000000000000000000000000000000000000000"
)
"""ONE as version 1 wrote it, at second 1000, to a file of the name `frozen.entries`."""


@own_folder
@given(entries)
def test_entries_come_back_as_they_were_from_the_last_to_the_first(tmp_path: Path, written: list[KeptEntry]) -> None:
    """R-S05: any bytes, also none; the count and the size are those of the file."""
    path = tmp_path / "entries"
    assert write_entries(path, written, now=100.0) == (len(written), path.stat().st_size, None)
    assert list(read_entries(path, now=100.0)) == written[::-1]


@own_folder
@given(entries, st.data())
def test_when_time_runs_out_the_first_entries_are_a_good_file(
    tmp_path: Path, written: list[KeptEntry], data: st.DataObject
) -> None:
    """R-E17: as many as there was time for, at whichever it ends."""
    path = tmp_path / "entries"
    path.unlink(missing_ok=True)
    times = data.draw(st.integers(0, len(written)))
    left = iter([True] * times)
    told = write_entries(path, written, now=100.0, still_time=lambda: next(left, False))
    assert (told.entries, told.cut) == (times, None if times == len(written) else "time ran out")
    assert list(read_entries(path, now=100.0)) == written[:times][::-1]


def first_only() -> Generator[KeptEntry]:
    """One entry, and the next cannot be read."""
    yield ONE
    raise SpillUnread("too many files are open")


@pytest.mark.parametrize(("older", "stays"), [(0, False), (1, False), (2, True), (9, True)])
@pytest.mark.parametrize("cut", ["time ran out", "too many files are open"])
def test_a_cut_file_takes_the_place_of_no_longer_one(tmp_path: Path, older: int, cut: str, *, stays: bool) -> None:
    """R-E17: what was persisted whole is worth more than the beginning that there was time for."""
    path = tmp_path / "entries"
    write_entries(path, [ONE] * older, now=0.0)
    left = iter([True])
    if cut == "time ran out":
        told = write_entries(path, [ONE, ONE], now=0.0, still_time=lambda: next(left, False))
    else:
        told = write_entries(path, first_only(), now=0.0)
    assert told == ((0, 0, cut) if stays else (1, path.stat().st_size, cut))
    assert (len(list(read_entries(path, now=0.0))), [*tmp_path.iterdir()]) == (older if stays else 1, [path])


@pytest.mark.parametrize("older", [None, bytes(10_000)], ids=["none", "foreign"])
def test_a_cut_file_takes_the_place_of_none_and_of_a_foreign_one(tmp_path: Path, older: bytes | None) -> None:
    """R-E17: nothing of those would come back."""
    path = tmp_path / "entries"
    if older is not None:
        path.write_bytes(older)
    told = write_entries(path, first_only(), now=0.0)
    assert (told.entries, list(read_entries(path, now=0.0))) == (1, [ONE])


@own_folder
@given(entries.filter(bool), st.data())
def test_one_changed_bit_refuses_the_whole_file(tmp_path: Path, written: list[KeptEntry], data: st.DataObject) -> None:
    """R-S05: wherever it is, in lengths, times or values; nothing of the file is given."""
    path = tmp_path / "entries"
    write_entries(path, written, now=100.0)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(EntriesDamaged):
        next(read_entries(path, now=100.0))


@own_folder
@given(entries, st.data())
def test_a_file_that_ends_early_or_late_is_refused(
    tmp_path: Path, written: list[KeptEntry], data: st.DataObject
) -> None:
    """R-S05: also when it is cut between two records, or when one byte follows."""
    path = tmp_path / "entries"
    write_entries(path, written, now=100.0)
    content = path.read_bytes()
    kept = data.draw(st.integers(0, len(content) - 1))
    for torn in (content[:kept], content + b"\0"):
        path.write_bytes(torn)
        with pytest.raises(EntriesDamaged):
            next(read_entries(path, now=100.0))


@pytest.mark.parametrize("content", [b"", b"MBSPILL1 of another kind of file", os.urandom(5000)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """R-S05: whatever lies there."""
    path = tmp_path / "entries"
    path.write_bytes(content)
    with pytest.raises(EntriesDamaged):
        next(read_entries(path, now=0.0))


def test_good_records_of_two_files_of_one_second_are_no_good_file(tmp_path: Path) -> None:
    """R-E17: as a disk leaves them that wrote a part of the one over the other."""
    path, contents = tmp_path / "entries", list[bytes]()
    for values in ([], [b"one"], [b"one", b"two"], [b"six", b"ten"]):
        write_entries(path, [ONE._replace(stored=value) for value in values], now=100.0)
        contents.append(path.read_bytes())
    empty, first, older, newer = contents
    behind_the_first = len(first) - (len(empty) - 16)
    path.write_bytes(older[:behind_the_first] + newer[behind_the_first:])
    with pytest.raises(EntriesDamaged, match="records of another file"):
        list(read_entries(path, now=100.0))


def test_a_file_of_the_former_version_is_read(tmp_path: Path) -> None:
    """R-P08: written before entries told how often they were used; a newer version is refused, as anything foreign."""
    path = tmp_path / "frozen.entries"
    path.write_bytes(bytes.fromhex(FORMER))
    assert list(read_entries(path, now=1000.0)) == [ONE]
    path.write_bytes(bytes.fromhex(FORMER).replace(b"MBENTRY1", b"MBENTRY3"))
    with pytest.raises(EntriesDamaged, match="of another version"):
        list(read_entries(path, now=1000.0))


def test_time_goes_on_while_nobody_runs_and_never_back(tmp_path: Path) -> None:
    """R-S05: an hour of downtime counts; a clock that was set back lets nothing live longer."""
    path = tmp_path / "entries"
    write_entries(path, [ONE], now=1000.0)
    left = [next(read_entries(path, now)).seconds_left for now in (1000.0, 1045.0, 5000.0, 10.0)]
    assert left == [60.0, 15.0, 60.0 - 4000.0, 60.0]


def test_a_link_is_not_followed_and_a_leftover_is_no_obstacle(tmp_path: Path) -> None:
    """R-S05: neither when read nor when written; what a killed writer left goes."""
    path, elsewhere = tmp_path / "entries", tmp_path / "elsewhere"
    write_entries(elsewhere, [ONE], now=0.0)
    path.symlink_to(elsewhere)
    with pytest.raises(EntriesDamaged):
        next(read_entries(path, now=0.0))
    untouched = elsewhere.read_bytes()
    (tmp_path / "entries.part").symlink_to(elsewhere)
    write_entries(path, [], now=0.0)
    assert (list(read_entries(path, now=0.0)), elsewhere.read_bytes()) == ([], untouched)


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """R-S05: an iterator that breaks half-way, as a full disk would."""
    path = tmp_path / "entries"
    write_entries(path, [ONE], now=0.0)

    def breaks() -> list[KeptEntry]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_entries(path, (entry for part in (lambda: [ONE], breaks) for entry in part()), now=0.0)
    assert (list(read_entries(path, now=0.0)), [file.name for file in tmp_path.iterdir()]) == ([ONE], ["entries"])
