"""The pool under threads, at its bound and at its end."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from membudget_engine.errors import ChunkStoreClosed
from membudget_engine.stores.connection_pool import MAX_CONNECTIONS, ReadOnlyPool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ReadOnlyPool]:
    """A pool over a small database, in a folder whose name needs escaping."""
    folder = tmp_path / "50% ? # ä"
    folder.mkdir()
    connection = sqlite3.connect(folder / "a.sqlite")
    connection.execute("CREATE TABLE t (n INTEGER)")
    connection.close()
    pool = ReadOnlyPool(folder / "a.sqlite")
    yield pool
    pool.close()


def test_a_connection_comes_back_also_after_an_error(pool: ReadOnlyPool) -> None:
    """R-E15, known bug 13: bounded pool; a failed read must not use up a place."""
    for _ in range(MAX_CONNECTIONS + 1):
        with pytest.raises(sqlite3.OperationalError), pool.connection() as connection:
            connection.execute("SELECT * FROM nowhere")


def test_a_fifth_reader_waits_for_one_of_four(pool: ReadOnlyPool) -> None:
    """R-E15: bounded pool."""
    came = threading.Event()

    def read() -> None:
        with pool.connection():
            came.set()

    reader = threading.Thread(target=read)
    with ExitStack() as used:
        connections = {id(used.enter_context(pool.connection())) for _ in range(MAX_CONNECTIONS)}
        reader.start()
        assert not came.wait(0.1)
    assert came.wait(10)
    reader.join()
    assert len(connections) == MAX_CONNECTIONS


def test_writing_is_refused(pool: ReadOnlyPool) -> None:
    """R-E15: a sealed file never changes."""
    with pytest.raises(sqlite3.OperationalError, match="readonly"), pool.connection() as connection:
        connection.execute("INSERT INTO t VALUES (1)")


def test_close_ends_idle_connections_at_once_and_used_ones_when_they_come_back(pool: ReadOnlyPool) -> None:
    """R-E15: released on close."""
    with pool.connection() as idle, pool.connection() as used:
        pass
    with pool.connection() as used:
        pool.close()
        assert used.execute("SELECT * FROM t").fetchall() == []
    for connection in (idle, used):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    with pytest.raises(ChunkStoreClosed, match="was closed"), pool.connection():
        pass


def test_a_file_without_a_name_is_read_on_through_the_connections_that_are_open(
    pool: ReadOnlyPool, tmp_path: Path
) -> None:
    """R-P09: a generation is removed while a query is at it; the next one waits for its connection."""
    read = threading.Event()

    def read_too() -> None:
        with pool.connection() as connection:
            connection.execute("SELECT count(*) FROM t").fetchone()
            read.set()

    reader = threading.Thread(target=read_too)
    with pool.connection():
        (tmp_path / "50% ? # ä" / "a.sqlite").unlink()
        reader.start()
        assert not read.wait(0.1)
    assert read.wait(10)
    reader.join()


def test_a_file_that_was_never_there_is_an_error_at_once(tmp_path: Path) -> None:
    """R-E15: nobody waits for a connection that will not come."""
    pool = ReadOnlyPool(tmp_path / "nowhere")
    with pytest.raises(sqlite3.OperationalError, match="unable to open"), pool.connection():
        pass
    pool.close()
