"""Ingestion in batches: interrupted anywhere it goes on, and a file larger than the bound is ingested inside it."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.engine_process import wait_until
from engine.test_vector_source import write_fvecs
from membudget_engine.build_command import build_sources
from membudget_engine.collection import open_generation
from membudget_engine.embedder import HashingEmbedder, Vectors
from membudget_engine.errors import BuildFailed, ChunkStoreInvalid, SourceInvalid
from membudget_engine.index.generations import Generation, find_newest_generation
from membudget_engine.index.manifest import VECTORS_FILE
from membudget_engine.index.staged_build import STAGING_FOLDER, Ingestion, Progress, ingest
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.ingest.document_source import DocumentSource, Keys
from membudget_engine.ingest.record import Extent, Record
from membudget_engine.ingest.steps import FileSteps
from membudget_engine.ingest.vector_source import VectorSource
from membudget_engine.stores.chunk_store import CHUNKS_FILE, PAGE_BYTES
from memory_cgroup import memory_cgroup

MB = 1024 * 1024
EMBEDDER = HashingEmbedder(32)


def _documents(folder: Path, count: int) -> Path:
    file = folder / "documents.ndjson"
    lines = (
        json.dumps({"id": f"d{n}", "source": f"text {n} {'word ' * 50}", "path": f"{n % 3}.md"}) for n in range(count)
    )
    file.write_text("\n".join(lines))
    return file


def _ingestion(file: Path, target: Path, memory: int = 12 * MB) -> Ingestion:
    return Ingestion("core", DocumentSource(file, Keys()), target, EMBEDDER, threads=1, memory_bytes=memory)


def _ids(generation: Generation) -> list[str]:
    opened = open_generation("core", generation)
    try:
        return [chunk.id for chunk in opened.chunks.get(range(generation.manifest.count))]
    finally:
        opened.close()


class Interrupted(Exception):
    """What ends an ingestion in these tests."""


def test_an_ingestion_is_interrupted_after_every_batch_and_is_the_same_in_the_end(tmp_path: Path) -> None:
    """R-E16: resumable; no row twice, none missing, no byte different."""
    file = _documents(tmp_path, 3_000)
    whole = ingest(_ingestion(file, tmp_path / "whole"), lambda _: None)
    heard = list[Progress]()

    def interrupt(done: Progress) -> None:
        heard.append(done)
        raise Interrupted

    pieces: Generation | None = None
    while pieces is None:
        with contextlib.suppress(Interrupted):
            pieces = ingest(_ingestion(file, tmp_path / "pieces"), interrupt)

    assert len(heard) > 3
    assert [done.rows for done in heard] == sorted({done.rows for done in heard})
    assert _ids(whole) == _ids(pieces) == [f"d{number}" for number in range(3_000)]
    vectors = [(generation.directory / VECTORS_FILE).read_bytes() for generation in (whole, pieces)]
    assert vectors[0] == vectors[1]
    assert not (tmp_path / "pieces" / STAGING_FOLDER).exists()


def test_another_file_begins_anew(tmp_path: Path) -> None:
    """R-E16: what was staged of the file as it was is of no use."""
    file = _documents(tmp_path, 2_000)

    def interrupt(_done: Progress) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        ingest(_ingestion(file, tmp_path / "core"), interrupt)
    file.write_text('{"id": "only", "source": "other"}\n')

    assert ["only"] == _ids(ingest(_ingestion(file, tmp_path / "core"), lambda _: None))


def _torn(staging: Path) -> None:
    os.truncate(staging / CHUNKS_FILE, (staging / CHUNKS_FILE).stat().st_size // 2)


def _foreign(staging: Path) -> None:
    (staging / CHUNKS_FILE).write_bytes(b"no database " * 5_000)


def _page_of_noughts(staging: Path) -> None:
    with (staging / CHUNKS_FILE).open("r+b") as stream:
        stream.seek(4 * PAGE_BYTES)
        stream.write(bytes(PAGE_BYTES))


def _header_of_another_version(staging: Path) -> None:
    with (staging / CHUNKS_FILE).open("r+b") as stream:
        stream.seek(18)
        stream.write(b"\x05")


def _other_text(staging: Path) -> None:
    _changed(staging / CHUNKS_FILE, "UPDATE chunks SET name = 'another' WHERE row = 7")


def _rows_less(staging: Path) -> None:
    _changed(staging / CHUNKS_FILE, "DELETE FROM chunks WHERE row > 500")


def _changed(file: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(statement)


def _vectors_cut(staging: Path) -> None:
    os.truncate(staging / VECTORS_FILE, (staging / VECTORS_FILE).stat().st_size // 2)


def _other_vector(staging: Path) -> None:
    with (staging / VECTORS_FILE).open("r+b") as stream:
        stream.seek(4 * 32 * 20)
        stream.write(np.ones(1, dtype=np.float32).data)


def _more_rows_told(staging: Path) -> None:
    progress = json.loads((staging / "progress.json").read_text())
    (staging / "progress.json").write_text(json.dumps({**progress, "rows": progress["rows"] + 500}))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file, and a collection with a generation of 20 of its documents, where more of it are staged."""
    folder = tmp_path_factory.mktemp("interrupted")
    ingest(_ingestion(_documents(folder, 20), folder / "core"), lambda _: None)
    file = _documents(folder, 2_000)

    def interrupt(_done: Progress) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        ingest(_ingestion(file, folder / "core"), interrupt)
    return file, folder / "core"


@pytest.mark.parametrize(
    "damage",
    [
        _torn,
        _foreign,
        _header_of_another_version,
        _page_of_noughts,
        _other_text,
        _rows_less,
        _vectors_cut,
        _other_vector,
        _more_rows_told,
    ],
)
def test_what_was_staged_and_is_damaged_is_refused_with_what_to_do_and_the_last_generation_stays(
    tmp_path: Path, interrupted: tuple[Path, Path], damage: Callable[[Path], None]
) -> None:
    """R-E16, fault 69: else a generation that nobody can open, or with other vectors, would hide the good one."""
    file, target = interrupted[0], tmp_path / "core"
    shutil.copytree(interrupted[1], target)
    damage(target / STAGING_FOLDER)

    with pytest.raises(
        (BuildFailed, ChunkStoreInvalid), match=r"is damaged: remove that, and|is damaged; remove it, and"
    ):
        ingest(_ingestion(file, target), lambda _: None)
    found = find_newest_generation(target)
    assert (found.found and found.found.manifest.count, found.skipped) == (20, ())


def test_without_what_was_damaged_it_is_built_again(tmp_path: Path, interrupted: tuple[Path, Path]) -> None:
    """R-E16: what the message says helps."""
    file, target = interrupted[0], tmp_path / "core"
    shutil.copytree(interrupted[1], target)
    shutil.rmtree(target / STAGING_FOLDER)

    assert ingest(_ingestion(file, target), lambda _: None).manifest.count == 2_000


@pytest.mark.parametrize("progress", [b"{", b'{"source": "x", "rows": 3}', b'{"source":"x","digest":"","rows":-1}'])
def test_progress_that_says_nothing_begins_anew(tmp_path: Path, progress: bytes) -> None:
    """R-E16: the source is there still; a former version's progress has no digest."""
    file, target = _documents(tmp_path, 20), tmp_path / "core"
    (target / STAGING_FOLDER).mkdir(parents=True)
    (target / STAGING_FOLDER / "progress.json").write_bytes(progress)
    (target / STAGING_FOLDER / CHUNKS_FILE).write_bytes(b"no database")

    assert [f"d{number}" for number in range(20)] == _ids(ingest(_ingestion(file, target), lambda _: None))


def test_a_digest_that_is_none_begins_anew(tmp_path: Path, interrupted: tuple[Path, Path]) -> None:
    """R-E16: damage in the progress itself."""
    file, target = interrupted[0], tmp_path / "core"
    progress = shutil.copytree(interrupted[1], target) / STAGING_FOLDER / "progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_text()), "rows": 0, "digest": "none"}))

    assert ingest(_ingestion(file, target), lambda _: None).manifest.count == 2_000


def test_killed_at_any_moment_it_goes_on_and_ends_whole(tmp_path: Path) -> None:
    """R-E16, fault 55: by SIGKILL, from the first batch to the rename."""
    file = _documents(tmp_path, 3_000)
    argv = [sys.executable, "-m", "membudget_engine", "build", "--data", str(tmp_path / "data")]
    argv += ["--source", f"core={file}", "--memory", "12Mi"]
    staging = tmp_path / "data" / "core" / STAGING_FOLDER
    kills, seen = 0, _staged_rows(staging)
    while kills < 5:
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        wait_until(lambda seen=seen, process=process: _staged_rows(staging) > seen or process.poll() is not None)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills, seen = kills + 1, _staged_rows(staging)
    subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
    found = find_newest_generation(tmp_path / "data" / "core").found
    assert found is not None
    assert kills >= 2
    assert [f"d{number}" for number in range(3_000)] == _ids(found)


def _staged_rows(staging: Path) -> int:
    try:
        return json.loads((staging / "progress.json").read_text())["rows"]
    except OSError:
        return 0


def test_steps_map_and_filter_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    """R-E16: in their order."""
    file = _documents(tmp_path, 300)
    heard = list[Progress]()

    def shout(chunk: Chunk) -> Chunk | None:
        return None if chunk.path == "1.md" else msgspec.structs.replace(chunk, source=chunk.source.upper())

    generation = ingest(replace(_ingestion(file, tmp_path / "core"), steps=(shout,)), heard.append)

    opened = open_generation("core", generation)
    assert {"0.md", "2.md"} == {chunk.path for chunk in opened.chunks.get(range(200))}
    assert opened.chunks.get([0])[0].source.startswith("TEXT 0")
    assert (heard[-1].rows, heard[-1].filtered) == (200, 100)
    opened.close()


def test_the_command_takes_files_keys_and_filters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """R-E16: no code is needed for a file with other names."""
    file = tmp_path / "pages.json"
    file.write_text(
        json.dumps([{"n": f"p{number}", "body": f"page {number}", "at": f"{number % 2}.md"} for number in range(10)])
    )
    caplog.set_level("INFO")

    build_sources(
        tmp_path / "data", [f"pages={file}"],
        file_steps=FileSteps(keys=["id=n", "source=body", "path=at"], only=["path=1.*"]),
    )  # fmt: skip

    found = find_newest_generation(tmp_path / "data" / "pages").found
    assert found is not None
    assert [f"p{number}" for number in range(1, 10, 2)] == _ids(found)
    assert "5 chunks of pages.json" in caplog.text
    for wrong in (FileSteps(keys=["id"]), FileSteps(keys=["colour=x"]), FileSteps(only=["vector=x"])):
        with pytest.raises(BuildFailed, match="write FIELD="):
            build_sources(tmp_path / "data", [f"pages={file}"], file_steps=wrong)
    with pytest.raises(BuildFailed, match="no source"):
        build_sources(tmp_path / "data", [f"pages={tmp_path / 'pages.csv'}"])


class Some:
    """A source of records that a test names."""

    def __init__(self, records: list[Record], dimension: int | None = None) -> None:
        self._records = records
        self.extent = Extent("some", len(records), dimension)

    def records(self, position: int) -> Iterator[Record]:
        """From there."""
        return iter(self._records[position:])


def _record(number: int, vector: Vectors | None = None) -> Record:
    chunk = Chunk(f"d{number}", "", "", "text", "", "", (), "text", 0, 0)
    return Record(chunk, number + 1, vector)


_ONE, _TWO = np.ones(1, dtype=np.float32), np.ones(2, dtype=np.float32)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (Some([]), BuildFailed),
        (Some([_record(0), _record(0)]), ChunkStoreInvalid),
        (Some([_record(0, _TWO), _record(1)], 2), SourceInvalid),
        (Some([_record(0, _TWO), _record(1, _ONE)], 2), SourceInvalid),
        (Some([_record(0, _TWO * np.inf)], 2), SourceInvalid),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is_published(
    tmp_path: Path, source: Some, error: type[Exception]
) -> None:
    """R-E16: with the former generation in place."""
    with pytest.raises(error):
        ingest(Ingestion("core", source, tmp_path / "core", EMBEDDER, 1, 8 * MB), lambda _: None)
    assert find_newest_generation(tmp_path / "core").found is None


def test_too_little_memory_for_an_index_is_refused_with_the_figure_and_what_was_staged_stays(tmp_path: Path) -> None:
    """R-E16: the next try with more begins at the index."""
    file = tmp_path / "rows.fvecs"
    write_fvecs(file, np.random.default_rng(1).standard_normal((20_000, 16), dtype=np.float32))
    ingestion = Ingestion("core", VectorSource(file), tmp_path / "core", EMBEDDER, 1, MB)
    with pytest.raises(BuildFailed, match=r"takes \d+ bytes to build, 1048576 may be used"):
        ingest(ingestion, lambda _: None)

    heard = list[Progress]()
    generation = ingest(replace(ingestion, memory_bytes=64 * MB), heard.append)

    assert (heard, generation.manifest.count) == ([], 20_000)


_ROWS, _DIMENSION = 25_000, 2_048
LIMIT = 64 * MB


def _clustered(rows: int, dimension: int) -> Vectors:
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((300, dimension), dtype=np.float32)
    clustered = centres[generator.integers(0, 300, rows)]
    clustered += np.float32(0.5) * generator.standard_normal((rows, dimension), dtype=np.float32)
    return clustered


@pytest.mark.cgroup
def test_a_file_of_three_times_the_limit_is_ingested_inside_it(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E16: 195 MB of vectors in a real cgroup of 64 MB; killed if it did not keep to it."""
    file = tmp_path / "rows.fvecs"
    with file.open("wb") as stream:
        for _ in range(_ROWS // 1_000):
            write_fvecs(tmp_path / "block", _clustered(1_000, _DIMENSION))
            stream.write((tmp_path / "block").read_bytes())
    argv = [sys.executable, "-m", "membudget_engine", "build", "--data", str(tmp_path / "data"), "--memory", "24Mi"]
    argv += ["--source", f"core={file}"]
    with memory_cgroup(LIMIT) as cgroup:
        process = cgroup.run(argv, stderr=subprocess.PIPE, text=True, env=_ONE_THREAD)
        _, log = process.communicate()
        kills, peak = cgroup.oom_kills(), cgroup.peak_usage()
    assert (process.returncode, kills) == (0, 0), log
    found = find_newest_generation(tmp_path / "data" / "core").found
    assert found is not None
    assert found.manifest.count == _ROWS
    publish(
        f"{file.stat().st_size // MB} MB of vectors ingested in a cgroup of {LIMIT // MB} MB "
        f"(peak {peak // MB} MB with page cache), recall {found.manifest.recall}"
    )


_ONE_THREAD = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}

_BUILDING = """
import os, sys, threading
from dataclasses import replace
from pathlib import Path
import faiss
import numpy as np
from engine.engine_process import status_bytes
from membudget_engine.index.build import Plan, build_bytes, publish_next, training_rows_of
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter

folder, representation, count = Path(sys.argv[1]), sys.argv[2], 20_000
plan = Plan("core", "given-256", 256, 1, representation)
plan = replace(plan, training_rows=min(4_000, training_rows_of(plan, count)))

def fill(building):
    os.link(folder / "rows", building / "vectors.f32")
    with ChunkStoreWriter(building / CHUNKS_FILE) as store:
        store.add(Chunk(str(n), "", "", "text", "", "", (), "", 0, 0) for n in range(count))
        store.seal()
    return count

faiss.IndexFlatIP(4).search(np.zeros((1, 4), dtype=np.float32), 1)
before, peak, ended = status_bytes(os.getpid(), "RssAnon"), [0], threading.Event()

def watch():
    while not ended.wait(0.002):
        peak[0] = max(peak[0], status_bytes(os.getpid(), "RssAnon"))

watcher = threading.Thread(target=watch)
watcher.start()
publish_next(folder, plan, fill)
ended.set()
watcher.join()
print(peak[0] - before, build_bytes(plan, count))
"""


@pytest.mark.parametrize("representation", ["Exact", "Int8", "Compact"])
def test_building_takes_no_more_than_it_says(
    tmp_path: Path, representation: str, publish: Callable[[str], None]
) -> None:
    """R-E01: the figure that is reserved in the ledger, against RssAnon of a process that builds."""
    _clustered(20_000, 256).tofile(tmp_path / "rows")
    argv = [sys.executable, "-c", _BUILDING, str(tmp_path), representation]
    ended = subprocess.run(argv, env=_ONE_THREAD, capture_output=True, text=True, check=True)
    taken, said = map(int, ended.stdout.split())
    publish(f"building {representation}, 20,000 x 256: {taken / MB:.1f} MB taken at most, {said / MB:.1f} MB reserved")
    assert taken <= said
