"""Real generations for the tests of the engine: built once by the real builder, never changed by a test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.build import build_collection
from membudget_engine.index.generations import Generation
from membudget_engine.ingest.chunk import Chunk, chunk_id

ChunkMaker = Callable[[int], list[Chunk]]

_VERBS = ("parse", "open", "close", "merge", "split", "compress", "walk", "submit", "encode", "rotate", "lock")
_NOUNS = (
    "socket",
    "archive",
    "thread",
    "json",
    "path",
    "calendar",
    "queue",
    "header",
    "token",
    "image",
    "matrix",
    "row",
)


def _chunks(count: int) -> list[Chunk]:
    def chunk(number: int) -> Chunk:
        name = f"{_VERBS[number % 11]}_{_NOUNS[number // 11 % 12]}_{number}"
        path = f"package/module_{number % 97}.py"
        return Chunk(
            id=chunk_id(path, name, number + 1),
            path=path,
            name=name,
            kind="function",
            signature=f"def {name}(value)",
            docstring="",
            dependencies=("len",),
            source=f"def {name}(value):\n    return len(value) + {number}",
            start_line=number + 1,
            end_line=number + 2,
        )

    return [chunk(number) for number in range(count)]


def _build(target: Path, count: int) -> Generation:
    return build_collection(
        collection="sample",
        chunks=_chunks(count),
        embedder=HashingEmbedder(),
        target=target,
        threads=1,
        progress=lambda _: None,
    )


@pytest.fixture(scope="session")
def make_chunks() -> ChunkMaker:
    """Makes so many chunks with different names."""
    return _chunks


@pytest.fixture(scope="session")
def flat_generation(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    """2,000 vectors, so a Flat index of 3 MB."""
    return _build(tmp_path_factory.mktemp("flat"), 2_000)


@pytest.fixture(scope="session")
def listed_generation(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    """10,500 vectors, so an IVF-Flat index of 16 MB with 102 lists."""
    return _build(tmp_path_factory.mktemp("listed"), 10_500)
