"""Chunks written once and read from threads; files that are no sealed store."""

import random
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop_volume import make_image, mounted, require_loop_devices
from membudget_engine.errors import ChunkMissing, ChunkStoreClosed, ChunkStoreInvalid
from membudget_engine.index.generations import Generation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import CHUNKS_FILE, PAGE_BYTES, ChunkStore, ChunkStoreWriter

_Text = st.text(max_size=60)
_Chunks = st.lists(
    st.builds(
        Chunk,
        id=_Text,
        path=_Text,
        name=_Text,
        kind=st.sampled_from(["function", "method", "class"]),
        signature=_Text,
        docstring=_Text,
        dependencies=st.lists(_Text, max_size=4).map(tuple),
        source=st.one_of(_Text, st.builds(str.__mul__, _Text, st.integers(10, 50))),
        start_line=st.integers(1, 1 << 40),
        end_line=st.integers(1, 1 << 40),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda chunk: chunk.id,
)


def _written(file: Path, chunks: list[Chunk]) -> Path:
    with ChunkStoreWriter(file) as writer:
        writer.add(chunks)
        writer.seal()
    return file


@pytest.fixture
def store(listed_generation: Generation) -> Iterator[ChunkStore]:
    """10,500 chunks."""
    store = ChunkStore(listed_generation.directory / CHUNKS_FILE)
    yield store
    store.close()


@settings(max_examples=40, deadline=None)
@given(_Chunks)
def test_chunks_are_read_back_as_they_were_written(chunks: list[Chunk]) -> None:
    """R-E15: all fields, in the order asked, also compressed ones."""
    with tempfile.TemporaryDirectory() as folder:
        store = ChunkStore(_written(Path(folder, CHUNKS_FILE), chunks))
        rows = [*range(len(chunks))][::-1]

        assert chunks[::-1] == store.get(rows)
        assert {chunk.id: row for row, chunk in enumerate(chunks)} == store.rows_of(chunk.id for chunk in chunks)
        assert chunks == [*store.in_order()]
        assert len(chunks) == store.count()
        store.close()


def test_a_row_that_is_not_there_is_an_error_and_an_unknown_id_has_none(store: ChunkStore) -> None:
    """R-E15: a missing row means that index and store do not belong together; an id may be of yesterday."""
    with pytest.raises(ChunkMissing, match="no row 10500"):
        store.get([0, 10_500])
    with pytest.raises(ChunkMissing, match="no row -1"):
        store.get([-1])
    assert store.rows_of(["unknown"]) == {}
    assert store.get([]) == []


def test_a_source_is_compressed_only_where_that_saves_a_fifth(tmp_path: Path) -> None:
    """R-E15: 10,000 chunks in at most 15.5 MB in the store, and no time lost on short sources."""
    repeating, short = "x = 1\n" * 200, "x = 1"
    chunks = [Chunk(source, "a.py", "f", "function", "", "", (), source, 1, 1) for source in (repeating, short)]
    file = _written(tmp_path / CHUNKS_FILE, chunks)
    connection = sqlite3.connect(file)

    kinds = connection.execute("SELECT typeof(source) FROM chunks ORDER BY row").fetchall()
    page_bytes = connection.execute("PRAGMA page_size").fetchone()
    connection.close()

    assert kinds == [("blob",), ("text",)]
    assert page_bytes == (PAGE_BYTES,)


def test_eight_threads_read_the_right_chunks_through_four_connections(
    store: ChunkStore, listed_generation: Generation
) -> None:
    """R-E15: bounded pool."""
    expected = {row: store.get([row])[0] for row in range(0, 10_500, 1_500)}
    wrong: list[int] = []

    def read(first: int) -> None:
        for turn in range(200):
            row = (first + turn) % 7 * 1_500
            if store.get([row]) != [expected[row]]:
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert listed_generation.manifest.count == store.count()


def test_reading_after_close_is_refused(listed_generation: Generation) -> None:
    """R-E15: released on close."""
    store = ChunkStore(listed_generation.directory / CHUNKS_FILE)
    store.close()
    store.close()

    with pytest.raises(ChunkStoreClosed, match="closed"):
        store.get([0])


def test_a_store_that_was_not_sealed_is_refused(tmp_path: Path, store: ChunkStore) -> None:
    """R-E15: a builder that died leaves nothing that looks sound."""
    with ChunkStoreWriter(tmp_path / CHUNKS_FILE) as writer:
        writer.add(store.get([0]))

    with pytest.raises(ChunkStoreInvalid, match="no sealed chunk store"):
        ChunkStore(tmp_path / CHUNKS_FILE)


@pytest.mark.parametrize("content", [None, b"", b"not a database, but longer than its header" * 50])
def test_what_is_no_store_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    """R-E15: errors say which file."""
    file = tmp_path / CHUNKS_FILE
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ChunkStoreInvalid, match=CHUNKS_FILE):
        ChunkStore(file)


def test_a_store_is_never_written_over(tmp_path: Path) -> None:
    """R-E15: sealed is sealed."""
    (tmp_path / CHUNKS_FILE).touch()

    with pytest.raises(ChunkStoreInvalid, match="written once"):
        ChunkStoreWriter(tmp_path / CHUNKS_FILE)


def test_a_store_with_a_name_that_is_no_text_is_refused_when_it_is_copied(tmp_path: Path, store: ChunkStore) -> None:
    """Faults 59-61: as a reader refuses it; Python cannot decode what SQLite says of it."""
    former = tmp_path / "former.sqlite"
    with ChunkStoreWriter(former) as writer:
        writer.add(store.get([0]))
        writer.seal()
    former.write_bytes(former.read_bytes().replace(b"tablechunks", b"table\xff\xfe\xfd\xfc\xfb\xfa"))

    with pytest.raises(ChunkStoreInvalid, match="former"):
        ChunkStore(former)
    with ChunkStoreWriter(tmp_path / CHUNKS_FILE) as writer, pytest.raises(ChunkStoreInvalid, match="former"):
        writer.copy(former, [])


@pytest.mark.parametrize(("column", "value"), [("dependencies", "NULL"), ("name", "NULL"), ("start_line", "'one'")])
def test_a_value_of_another_type_is_damage(tmp_path: Path, column: str, value: str) -> None:
    """R-E15, faults 59 and 60: one flipped byte of a record's head makes it another type, whatever the schema says."""
    chunk = Chunk("one", "path", "name", "function", "", "", (), "text", 1, 2)
    file = _written(tmp_path / CHUNKS_FILE, [chunk])
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        loosened = "replace(replace(sql, ' NOT NULL', ''), ' STRICT', '')"
        connection.execute(f"UPDATE sqlite_master SET sql = {loosened} WHERE name = 'chunks'")
    connection.close()
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute(f"UPDATE chunks SET {column} = {value}")
    connection.close()
    store = ChunkStore(file)
    for read in (lambda: store.get([0]), lambda: [*store.in_order()]):
        with pytest.raises(ChunkStoreInvalid, match="another type than was written"):
            read()
    store.close()


def test_rows_come_in_the_order_asked_however_many_and_however_often(store: ChunkStore) -> None:
    """R-E18: more than one statement asks for, one of them twice; and one that is not there is told."""
    rows = random.Random(1).choices(range(200), k=350)

    assert [store.get([row])[0] for row in rows] == store.get(rows)
    with pytest.raises(ChunkMissing, match=f"no row {store.count()}"):
        store.get([*rows, store.count()])


def test_a_read_only_volume_is_not_told_as_damage(tmp_path: Path) -> None:
    """R-E16, fault 73: what the volume does, whoever builds tells with what it was doing."""
    require_loop_devices()
    image, folder = tmp_path / "image", tmp_path / "volume"
    make_image(image, 8 * 1024 * 1024)
    with mounted(image, folder, "noatime"), ChunkStoreWriter(folder / CHUNKS_FILE, rows=0) as writer:
        writer.commit()
    with mounted(image, folder, "ro"), pytest.raises(sqlite3.OperationalError, match="readonly"):
        ChunkStoreWriter(folder / CHUNKS_FILE, rows=0)
