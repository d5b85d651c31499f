import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membudget_contract.control_api import Accepted, Room
from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept

ROOM = Room(room_bytes=12345)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file that holds ROOM."""
    path = tmp_path / "room.kept"
    write_kept(path, ROOM)
    return path


def test_a_message_comes_back_and_no_file_is_none(kept: Path) -> None:
    """R-P09: the last good message of a former life."""
    assert (read_kept(kept, Room), read_kept(kept.with_name("other"), Room)) == (ROOM, None)


def test_a_new_message_replaces_the_old_one_and_leaves_nothing_beside(kept: Path) -> None:
    """R-P09: one rename; who holds the old file open still reads the old message whole."""
    with kept.open("rb") as former:
        before = kept.read_bytes()
        write_kept(kept, Room(room_bytes=1))
        assert former.read() == before
    assert (read_kept(kept, Room), list(kept.parent.iterdir())) == (Room(room_bytes=1), [kept])


def test_a_write_that_fails_leaves_the_old_message_and_nothing_beside(kept: Path) -> None:
    """R-P09: a folder cannot be replaced by a file; the kernel says so after the bytes were written."""
    folder = kept.with_name("folder")
    (folder / "within").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_kept(folder, ROOM)
    assert sorted(path.name for path in kept.parent.iterdir()) == ["folder", "room.kept"]
    assert read_kept(kept, Room) == ROOM


def test_what_a_killed_writer_left_is_gone_with_the_next_write(kept: Path) -> None:
    """R-P09: a process that is killed at each write must not fill the disk."""
    code = (
        "import os, pathlib, signal, sys\nfrom membudget_contract.control_api import Room\n"
        "from membudget_contract.kept_file import write_kept\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_kept(pathlib.Path(sys.argv[1]), Room(room_bytes=9))"
    )
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", code, str(kept)], check=False)
        assert (killed.returncode, len(list(kept.parent.iterdir()))) == (-signal.SIGKILL, 2)
    assert read_kept(kept, Room) == ROOM
    write_kept(kept, Room(room_bytes=1))
    assert (read_kept(kept, Room), list(kept.parent.iterdir())) == (Room(room_bytes=1), [kept])


def test_a_file_torn_at_any_length_is_refused(kept: Path) -> None:
    """R-P09: also an empty one."""
    content = kept.read_bytes()
    for length in range(len(content)):
        kept.write_bytes(content[:length])
        with pytest.raises(KeptFileInvalid, match="torn"):
            read_kept(kept, Room)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_refused(kept: Path, data: st.DataObject) -> None:
    """R-P09: in the header or in the body."""
    write_kept(kept, ROOM)
    content = bytearray(kept.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    kept.write_bytes(content)
    with pytest.raises(KeptFileInvalid):
        read_kept(kept, Room)


def test_another_type_version_or_size_is_refused_and_stays(kept: Path) -> None:
    """R-P09: never half understood, never removed."""
    with pytest.raises(KeptFileInvalid, match="another version or type"):
        read_kept(kept, Accepted)
    right = kept.read_bytes()
    for content in (right.replace(b"kept 1 ", b"kept 2 "), right + b" " * 2 * 1024 * 1024):
        kept.write_bytes(content)
        with pytest.raises(KeptFileInvalid):
            read_kept(kept, Room)
        assert kept.read_bytes() == content


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """R-P09: a folder in its place."""
    with pytest.raises(KeptFileInvalid, match="Is a directory"):
        read_kept(tmp_path, Room)
