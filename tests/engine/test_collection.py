"""Opening what a data folder holds: the newest good generation of each collection, and an error that helps."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from membudget_engine.collection import Collection, open_collections
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.errors import ChunkStoreClosed, CollectionMissing, IndexClosed
from membudget_engine.index.build import build_collection
from membudget_engine.index.manifest import INDEX_FILE, MANIFEST_FILE
from membudget_engine.ingest.chunk import Chunk

ChunkMaker = Callable[[int], list[Chunk]]

EMBEDDER = HashingEmbedder(16)


def _build(data: Path, name: str, chunks: list[Chunk], embedder: HashingEmbedder = EMBEDDER) -> Path:
    return build_collection(
        collection=name, chunks=chunks, embedder=embedder, target=data / name, threads=1, progress=lambda _: None
    ).directory


def _close(collections: dict[str, Collection]) -> None:
    for collection in collections.values():
        collection.close()


def test_every_collection_is_opened_under_its_folders_name(tmp_path: Path, make_chunks: ChunkMaker) -> None:
    """R-E01: files beside them are no collections."""
    for name, count in (("core", 3), ("archive", 4)):
        _build(tmp_path, name, make_chunks(count))
    (tmp_path / "README").write_text("not a collection")
    (tmp_path / "lost+found").mkdir()

    collections = open_collections(tmp_path, EMBEDDER)

    assert {"archive": 4, "core": 3} == {name: c.manifest.count for name, c in collections.items()}
    assert collections["core"].chunks.count() == 3
    _close(collections)


@pytest.mark.parametrize("file", [INDEX_FILE, "chunks.sqlite", MANIFEST_FILE])
def test_when_the_newest_generation_is_damaged_the_older_one_is_served(
    tmp_path: Path, make_chunks: ChunkMaker, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    """R-E01: whichever file it is; the log names the folder."""
    _build(tmp_path, "core", make_chunks(3))
    newest = _build(tmp_path, "core", make_chunks(4))
    damaged = newest / file
    damaged.write_bytes(damaged.read_bytes()[:-5])

    with caplog.at_level(logging.WARNING):
        collections = open_collections(tmp_path, EMBEDDER)

    assert [1] == [collection.manifest.generation for collection in collections.values()]
    assert str(newest) in caplog.text
    _close(collections)


def test_a_collection_of_another_embedder_is_left_out_and_the_others_are_served(
    tmp_path: Path, make_chunks: ChunkMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """R-E01: vectors of two embedders cannot be compared."""
    _build(tmp_path, "core", make_chunks(3))
    _build(tmp_path, "other", make_chunks(3), HashingEmbedder(32))

    with caplog.at_level(logging.WARNING):
        collections = open_collections(tmp_path, EMBEDDER)

    assert ["core"] == list(collections)
    assert "made with hashing-32-v1, this engine has hashing-16-v1" in caplog.text
    _close(collections)


def test_a_collection_that_faiss_refuses_does_not_take_the_others_down(
    tmp_path: Path, make_chunks: ChunkMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """R-E01: its files are as its manifest says, but no index: a builder of another version."""
    _build(tmp_path, "core", make_chunks(3))
    broken = _build(tmp_path, "broken", make_chunks(3))
    manifest = (broken / MANIFEST_FILE).read_text()
    (broken / MANIFEST_FILE).write_text(manifest.replace('"count": 3', '"count": 4'))

    with caplog.at_level(logging.WARNING):
        collections = open_collections(tmp_path, EMBEDDER)

    assert ["core"] == list(collections)
    assert str(broken.parent) in caplog.text
    _close(collections)


@pytest.mark.parametrize("kind", ["missing", "empty", "damaged"])
def test_nothing_to_serve_names_the_command_that_makes_it(tmp_path: Path, make_chunks: ChunkMaker, kind: str) -> None:
    """R-E01: an engine without an index would answer nothing for ever."""
    data = tmp_path / "data"
    if kind != "missing":
        data.mkdir()
    if kind == "damaged":
        (_build(data, "core", make_chunks(3)) / INDEX_FILE).unlink()

    with pytest.raises(CollectionMissing, match=f"membudget-engine build --data {data} --source stdlib"):
        open_collections(data, EMBEDDER)


def test_a_closed_collection_answers_with_typed_errors(tmp_path: Path, make_chunks: ChunkMaker) -> None:
    """R-E17: a query that comes too late is told so."""
    _build(tmp_path, "core", make_chunks(3))
    collection = open_collections(tmp_path, EMBEDDER)["core"]

    collection.close()
    collection.close()

    with pytest.raises(IndexClosed):
        collection.segments[0].index.search(EMBEDDER.embed(["parse"]), 1)
    with pytest.raises(ChunkStoreClosed):
        collection.chunks.get([0])
