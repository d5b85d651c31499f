"""Building and publishing generations, also when it fails, dies or meets another builder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from membudget_engine.embedder import Embedder, HashingEmbedder, Vectors
from membudget_engine.errors import BuildFailed, BuildInProgress, ChunkStoreInvalid
from membudget_engine.index.build import build_collection
from membudget_engine.index.generations import Generation, find_newest_generation
from membudget_engine.index.manifest import MANIFEST_FILE, read_manifest
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import ChunkStore

ChunkMaker = Callable[[int], list[Chunk]]


def _build(target: Path, chunks: list[Chunk], embedder: Embedder | None = None) -> Generation:
    return build_collection(
        collection="sample",
        chunks=chunks,
        embedder=embedder or HashingEmbedder(16),
        target=target,
        threads=1,
        progress=lambda _: None,
    )


class _FixedEmbedder:
    """Gives the same vectors whatever the text."""

    name = "fixed"
    dimension = 4

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> Vectors:
        assert texts
        return self._vectors


def test_a_generation_holds_store_vectors_index_and_a_manifest_that_verifies(
    tmp_path: Path, make_chunks: ChunkMaker
) -> None:
    """R-E01: built aside and published by rename with a manifest."""
    seen: list[int] = []
    chunks = make_chunks(1_200)

    generation = build_collection(
        collection="core-api",
        chunks=iter(chunks),
        embedder=HashingEmbedder(16),
        target=tmp_path / "new" / "core-api",
        threads=1,
        progress=seen.append,
    )

    assert seen == [500, 1_000, 1_200]
    assert tmp_path / "new" / "core-api" / "generation-00000001" == generation.directory
    assert generation == find_newest_generation(generation.directory.parent).found
    manifest = generation.manifest
    assert (
        manifest.collection,
        manifest.count,
        manifest.dimension,
        manifest.index_type,
        manifest.embedder,
    ) == ("core-api", 1_200, 16, "Flat", "hashing-16-v1")
    assert {"chunks.sqlite", "chunks.texts", "vectors.f32", "index.faiss"} == set(manifest.files)
    assert {MANIFEST_FILE, *manifest.files} == {path.name for path in generation.directory.iterdir()}
    store = ChunkStore(generation.directory / "chunks.sqlite")
    assert [chunks[1_199], chunks[0]] == store.get([1_199, 0])
    store.close()


def test_each_build_takes_the_next_number_and_one_older_generation_stays(
    tmp_path: Path, make_chunks: ChunkMaker
) -> None:
    """R-E01: rebuild on request."""
    for count in (3, 4, 5):
        _build(tmp_path, make_chunks(count))

    assert [(path.name, read_manifest(path).count) for path in sorted(tmp_path.iterdir())] == [
        ("generation-00000002", 4),
        ("generation-00000003", 5),
    ]


def _gave(shape: tuple[int, int], value: float = 0.0) -> _FixedEmbedder:
    return _FixedEmbedder(np.full(shape, value, dtype=np.float32))


@pytest.mark.parametrize(
    ("embedder", "reason"), [(_gave((3, 5)), "shape"), (_gave((2, 4)), "shape"), (_gave((3, 4), np.nan), "NaN")]
)
def test_wrong_vectors_fail_the_build_and_leave_what_was_there(
    tmp_path: Path, make_chunks: ChunkMaker, embedder: Embedder, reason: str
) -> None:
    """R-E01: nothing is published, nothing is left behind."""
    before = _build(tmp_path, make_chunks(3))

    with pytest.raises(BuildFailed, match=reason):
        _build(tmp_path, make_chunks(3), embedder)

    assert [before.directory] == list(tmp_path.iterdir())


def test_a_build_of_nothing_is_refused(tmp_path: Path) -> None:
    """R-E01: an empty generation would hide the last good one."""
    with pytest.raises(BuildFailed, match="no chunks"):
        _build(tmp_path, [])

    assert list(tmp_path.iterdir()) == []


def test_an_id_that_comes_twice_fails_the_build(tmp_path: Path, make_chunks: ChunkMaker) -> None:
    """R-E15: an id finds one chunk."""
    with pytest.raises(ChunkStoreInvalid, match="twice"):
        _build(tmp_path, [*make_chunks(3), *make_chunks(1)])


_BUILDER_THAT_STOPS = """
import os, signal, sys, pathlib
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.build import build_collection
from membudget_engine.ingest.chunk import Chunk

def chunks():
    for number in range(600):
        yield Chunk(str(number), "a.py", "f", "function", "", "", (), "", 1, 1)
    print("half", flush=True)
    sys.stdin.read()

build_collection(collection="sample", chunks=chunks(), embedder=HashingEmbedder(16),
    target=pathlib.Path(sys.argv[1]), threads=1, progress=lambda _: None)
"""


def test_a_second_builder_is_refused_and_the_leftovers_of_a_killed_one_are_removed(
    tmp_path: Path, make_chunks: ChunkMaker
) -> None:
    """R-E01: two builders would write one folder; a dead one must not block the next."""
    with subprocess.Popen(
        [sys.executable, "-c", _BUILDER_THAT_STOPS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"half\n"
        with pytest.raises(BuildInProgress):
            _build(tmp_path, make_chunks(3))
        os.kill(other.pid, signal.SIGKILL)
        other.wait()

    assert [f".building-{other.pid}"] == [path.name for path in tmp_path.iterdir()]
    generation = _build(tmp_path, make_chunks(3))
    assert [generation.directory] == list(tmp_path.iterdir())
