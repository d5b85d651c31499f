"""Real generations for the tests of the engine: built once by the real builder, never changed by a test."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.engine_process import EngineProcess
from engine.page_cache import drop_from_page_cache
from membudget_engine.build_command import build_sources
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.build import build_collection
from membudget_engine.index.generations import Generation
from membudget_engine.ingest.chunk import Chunk, chunk_id
from membudget_engine.ingest.python_source import standard_library_root
from membudget_runtime.memory_runtime import MemoryRuntime

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


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the collection `small`: the json, asyncio and http packages, some hundred chunks."""
    folder = tmp_path_factory.mktemp("small")
    for package in ("json", "asyncio", "http"):
        shutil.copytree(standard_library_root() / package, folder / "source" / package)
    build_sources(folder / "data", [f"small={folder / 'source'}"])
    return folder / "data"


@dataclass(frozen=True)
class StdlibBuild:
    """The standard library, built by the command: over 10,000 chunks, so an IVF index."""

    data: Path
    log: list[str]


@pytest.fixture(scope="session")
def stdlib_build(tmp_path_factory: pytest.TempPathFactory) -> StdlibBuild:
    """Takes 7 s."""
    data = tmp_path_factory.mktemp("stdlib") / "data"
    argv = [sys.executable, "-m", "membudget_engine", "build", "--data", str(data), "--source", "stdlib"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True)
    return StdlibBuild(data, ended.stderr.splitlines())


@pytest.fixture(scope="session")
def stdlib_data(stdlib_build: StdlibBuild) -> Path:
    """A data folder with the collection `stdlib`."""
    return stdlib_build.data


@pytest.fixture(scope="session")
def build_log(stdlib_build: StdlibBuild) -> list[str]:
    """What the command wrote while it built the standard library."""
    return stdlib_build.log


@pytest.fixture(scope="session")
def engine(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One engine that serves `small`; no test stops it. Whatever it was sent, it logged no failure of its own."""
    with EngineProcess(small_data, tmp_path_factory.mktemp("engine")) as process:
        yield process.wait_until_serving()
        assert "Traceback" not in process.log
        assert "ERROR" not in process.log


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[MemoryRuntime]:
    """Bounds so wide that nothing goes unasked."""
    with closing(MemoryRuntime(tmp_path / "state", {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        yield runtime


@pytest.fixture
def page_cache_tells(tmp_path: Path) -> None:
    """Skips the test where the file system of temporary folders does not tell what it has in memory."""
    file = tmp_path / "page"
    file.write_bytes(bytes(4_096))
    drop_from_page_cache(file)
