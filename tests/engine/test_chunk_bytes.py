"""What a chunk costs in each store, read from outside in fresh processes, on the standard library's own chunks."""

import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from engine.engine_process import status_bytes
from membudget_engine.ingest.python_source import IngestReport, python_chunks, standard_library_root
from membudget_engine.stores.code_chunk import code_chunk

FILL = Path(__file__).with_name("fill_chunks.py")
PROMISED_BYTES = 1550
GOAL_BYTES = 450
DATABASE_GOAL_BYTES = 60
RELEASED = 0.756


class Figures(NamedTuple):
    """Of one process. `kept_bytes` are left after closing."""

    grown_bytes: int
    reported_bytes: int
    lookups_per_second: int
    kept_bytes: int


@pytest.fixture(scope="session")
def chunks_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard library's chunks as JSON, a line each; file by file, in an order in which no package comes first."""
    file = tmp_path_factory.mktemp("chunks") / "chunks.ndjson"
    by_path: dict[str, list[bytes]] = {}
    for chunk in python_chunks(standard_library_root(), IngestReport()):
        by_path.setdefault(chunk.path, []).append(msgspec.json.encode(code_chunk(chunk)) + b"\n")
    with file.open("wb") as lines:
        for path in random.Random(1).sample(sorted(by_path), len(by_path)):
            lines.writelines(by_path[path])
    return file


def measured(kind: str, folder: Path, chunks_file: Path, count: int) -> Figures:
    """A fresh process that fills a store, asks it and closes it."""
    folder.mkdir(parents=True)
    argv = [sys.executable, str(FILL), kind, str(folder), str(chunks_file), str(count)]
    # Else the order of sets, and so the heap's pages, would differ from process to process.
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        said: dict[str, tuple[int, int]] = {}
        assert process.stdin is not None
        assert process.stdout is not None
        for expected in ("empty", "full", "looked", "closed"):
            word, figure = process.stdout.readline().split()
            assert word == expected
            said[word] = (int(figure), status_bytes(process.pid, "RssAnon"))
            process.stdin.write("\n")
            process.stdin.flush()
    empty = said["empty"][1]
    return Figures(said["full"][1] - empty, said["full"][0], said["looked"][0], said["closed"][1] - empty)


def test_ten_thousand_chunks_in_memory(tmp_path: Path, chunks_file: Path, publish: Callable[[str], None]) -> None:
    """R-E15: under 450 bytes each where 1,550 are promised, reported as the kernel charges them."""
    runs = [measured("memory", tmp_path / str(run), chunks_file, 10_000) for run in range(3)]
    each = statistics.fmean(run.grown_bytes for run in runs) / 10_000
    rate = max(run.lookups_per_second for run in runs)
    publish(f"chunk store in memory: {each:.0f} bytes a chunk, {rate} look-ups in a second of processor time")

    assert each <= GOAL_BYTES < PROMISED_BYTES
    assert statistics.fmean(run.reported_bytes / run.grown_bytes for run in runs) == pytest.approx(1.0, abs=0.1)


def test_ten_thousand_chunks_on_sqlite(tmp_path: Path, chunks_file: Path, publish: Callable[[str], None]) -> None:
    """R-E15: at most 60 bytes of memory each, less than in memory; plain objects for comparison."""
    runs = [measured("database", tmp_path / str(run), chunks_file, 10_000) for run in range(3)]
    objects = measured("objects", tmp_path / "objects", chunks_file, 10_000)
    each = statistics.fmean(run.grown_bytes for run in runs) / 10_000
    rate = max(run.lookups_per_second for run in runs)
    publish(f"chunk store on SQLite: {each:.0f} bytes a chunk, {rate} look-ups in a second of processor time")
    publish(f"plain objects: {objects.grown_bytes / 10_000:.0f} bytes a chunk, {objects.lookups_per_second} look-ups")

    assert each <= DATABASE_GOAL_BYTES
    assert objects.grown_bytes / 10_000 > 2 * GOAL_BYTES


def test_memory_grows_linearly_to_fifty_thousand(
    tmp_path: Path, chunks_file: Path, publish: Callable[[str], None]
) -> None:
    """R-E15: doubling is 2.00 +- 0.05, within 77.5 MB, and closing gives at least 75.6 % back."""
    runs = {count: measured("memory", tmp_path / str(count), chunks_file, count) for count in (12_500, 25_000, 50_000)}
    grown = [run.grown_bytes for run in runs.values()]
    released = [1 - run.kept_bytes / run.grown_bytes for run in runs.values()]
    figures = [
        f"{count}: {n / MB:.2f} MB, {back:.1%} back" for count, n, back in zip(runs, grown, released, strict=True)
    ]
    publish(f"chunk store in memory, grown and back after closing: {'; '.join(figures)}")

    assert [grown[1] / grown[0], grown[2] / grown[1]] == pytest.approx([2.0, 2.0], abs=0.05)
    assert grown[2] <= 77.5 * MB
    assert min(released) >= RELEASED


def test_a_closed_database_store_gives_its_memory_back(tmp_path: Path, chunks_file: Path) -> None:
    """R-E15: what is left is no more than the interpreter's own growth."""
    run = measured("database", tmp_path / "run", chunks_file, 10_000)

    assert run.kept_bytes <= 0.5 * MB


MB = 1024 * 1024
