"""Chunks as JSON, row after row: the same as the store's, whole, and never waited for where nothing may wait."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.page_cache import drop_from_page_cache
from membudget_engine.errors import ChunkMissing, ChunkStoreClosed, ChunkStoreInvalid
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStore, ChunkStoreWriter
from membudget_engine.stores.chunk_texts import TEXTS_FILE, ChunkTexts, EncodedChunks, Texts, write_texts

ROWS = 300


def _chunk(number: int, source: str = "return 1") -> Chunk:
    return Chunk(
        id=f"chunk-{number}", path="a/b.py", name=f"f{number}", kind="function", signature="def f()",
        docstring='says "hello"\n', dependencies=("len",), source=source, start_line=1, end_line=2,
    )  # fmt: skip


def _written(folder: Path, chunks: list[Chunk]) -> Path:
    with ChunkStoreWriter(folder / CHUNKS_FILE) as store:
        store.add(chunks)
        store.seal()
    write_texts(folder / CHUNKS_FILE, folder / TEXTS_FILE, len(chunks))
    return folder / TEXTS_FILE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of 300 rows, sources from none to 30 kB, each of them another."""
    return _written(tmp_path, [_chunk(number, f"{number} λ\n" * (number * 10)) for number in range(ROWS)])


@pytest.fixture(params=["file", "store"])
def texts(request: pytest.FixtureRequest, file: Path) -> Iterator[Texts]:
    """Both kinds of them."""
    with closing(ChunkStore(file.with_name(CHUNKS_FILE))) as store:
        yield ChunkTexts(file, ROWS) if request.param == "file" else EncodedChunks(store)


def test_texts_are_the_stores_chunks_as_json_in_the_order_asked(texts: Texts, file: Path) -> None:
    """R-E18: whichever of both answers are put together from, they are the same to the byte."""
    rows = [299, 0, 7, 7, 120]
    with closing(ChunkStore(file.with_name(CHUNKS_FILE))) as store:
        expected = [msgspec.json.encode(chunk) for chunk in store.get(rows)]

    assert expected == [bytes(text) for text in texts.get(rows)]
    assert texts.get([]) == []


@given(sources=st.lists(st.text(max_size=50), min_size=1, max_size=20))
def test_any_text_is_kept_as_it_is(tmp_path_factory: pytest.TempPathFactory, sources: list[str]) -> None:
    """R-E18: signs of every kind, none at all, and what JSON has to escape."""
    chunks = [_chunk(number, source.encode("utf-8", "replace").decode()) for number, source in enumerate(sources)]
    with closing(ChunkTexts(_written(tmp_path_factory.mktemp("texts"), chunks), len(chunks))) as texts:
        found = texts.get(range(len(chunks)))

    assert [msgspec.json.encode(chunk) for chunk in chunks] == [bytes(text) for text in found]


def test_what_is_not_in_memory_is_told_and_not_waited_for(file: Path) -> None:
    """R-E21: the loop that answers everybody reads no disk; whoever may wait does, and then it is in memory."""
    drop_from_page_cache(file)
    with closing(ChunkTexts(file, ROWS)) as texts:
        rows = [299, 3, 150]

        assert texts.held(rows) is None
        read = texts.get(rows)
        assert read == texts.held(rows)
        # Its first half is in memory now, or what the disk read along; its end is not.
        assert texts.held([*rows, 220]) is None


def test_a_file_system_that_cannot_say_is_waited_for_like_a_disk(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-E21: tmpfs, NFS and overlays refuse the question. The one mock: a kernel that says so."""
    asked = os.preadv

    def refused(descriptor: int, buffers: list[bytearray], at: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return asked(descriptor, buffers, at, flags)

    with closing(ChunkTexts(file, ROWS)) as texts:
        expected = texts.get([5, 6])
        monkeypatch.setattr(os, "preadv", refused)

        assert texts.held([5, 6]) is None
        assert expected == texts.get([5, 6])


def test_a_store_is_never_read_where_nothing_may_wait(file: Path) -> None:
    """R-E21: a segment of an older version has no texts."""
    with closing(ChunkStore(file.with_name(CHUNKS_FILE))) as store:
        assert EncodedChunks(store).held([1]) is None


@pytest.mark.parametrize("row", [-1, ROWS, 1 << 40])
def test_a_row_that_is_not_there_is_refused(texts: Texts, row: int) -> None:
    """R-E16: index and texts of different generations."""
    with pytest.raises(ChunkMissing):
        texts.get([row])


def _is_told(file: Path) -> None:
    with pytest.raises(ChunkStoreInvalid):
        ChunkTexts(file, ROWS).get(range(ROWS))


@pytest.mark.usefixtures("page_cache_tells")
def test_a_flipped_bit_is_told_wherever_it_is(file: Path) -> None:
    """Faults 59-61: of texts, table or version; by whoever reads it."""
    sound = file.read_bytes()
    table_at = len(sound) - ROWS * 16 - 8
    for at in (*range(0, table_at, 9_973), *range(table_at, len(sound), 37)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << at % 8
        file.write_bytes(damaged)
        _is_told(file)
    file.write_bytes(b"[" + sound[1:])
    with closing(ChunkTexts(file, ROWS)) as texts, pytest.raises(ChunkStoreInvalid):
        texts.held([0])


def test_no_entry_of_the_table_stands_for_another_nor_zeros_for_an_empty_text(file: Path) -> None:
    """Fault 60: a page of zeros would else be an answer that is no JSON, and two entries exchanged another's chunk."""
    sound = file.read_bytes()
    first = len(sound) - 8 - 16 * ROWS
    one, other = sound[first : first + 16], sound[first + 16 : first + 32]
    for entries in (bytes(32), other + one):
        file.write_bytes(sound[:first] + entries + sound[first + 32 :])
        _is_told(file)


def test_what_takes_long_to_read_is_not_read_where_nothing_may_wait(tmp_path: Path) -> None:
    """R-E21: chunks of megabytes are joined by a worker, wherever they are."""
    file = _written(tmp_path, [_chunk(number, "x" * 100_000) for number in range(3)])
    with closing(ChunkTexts(file, 3)) as texts:
        assert texts.held([0, 1, 2]) is None
        assert [100_000] * 3 == [bytes(text).count(b"x") for text in texts.get([0, 1, 2])]


@pytest.mark.parametrize("count", [2, 4])
def test_a_store_of_another_number_of_chunks_is_told_when_its_texts_are_written(tmp_path: Path, count: int) -> None:
    """Fault 60: a text that is missing would be one of no length."""
    _written(tmp_path, [_chunk(number) for number in range(3)])
    with pytest.raises(ChunkStoreInvalid, match="rebuild"):
        write_texts(tmp_path / CHUNKS_FILE, tmp_path / "other.texts", count)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _shorter_than_its_table(file: Path) -> None:
    file.write_bytes(b"x" * (ROWS * 16 + 7))


def _place_beyond(file: Path) -> None:
    """A length of 4 GB, which nobody may set aside memory for."""
    content = bytearray(file.read_bytes())
    content[-16:-12] = b"\xff\xff\xff\xff"
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "told"),
    [(_cut, ""), (_shorter_than_its_table, "too short for a table"), (_place_beyond, "would lie beyond the texts")],
)
def test_a_file_of_other_places_than_were_written_is_damage(
    file: Path, harm: Callable[[Path], None], told: str
) -> None:
    """Faults 59, 61: typed, with what to do, and no byte is answered."""
    harm(file)

    with pytest.raises(ChunkStoreInvalid, match=f"{told}.*; take another generation or rebuild"):
        ChunkTexts(file, ROWS).get([ROWS - 1])


@pytest.mark.usefixtures("page_cache_tells")
def test_closed_texts_are_told_and_a_read_in_work_goes_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-E17: the descriptor's number may be another file's as soon as it is closed; so the last reader closes it."""
    before = _descriptors()
    texts = ChunkTexts(file, ROWS)
    expected = texts.get([1, 2])
    asked = os.preadv

    def closing_meanwhile(descriptor: int, buffers: list[bytearray], at: int, flags: int = 0) -> int:
        texts.close()
        return asked(descriptor, buffers, at, flags)

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", closing_meanwhile)
        assert expected == texts.held([1, 2])

    for read in (texts.get, texts.held):
        with pytest.raises(ChunkStoreClosed):
            read([1])
    assert before == _descriptors()
    texts.close()


def _descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}
