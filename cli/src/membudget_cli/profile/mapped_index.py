"""The mmap profile: one index file, opened by one process into anonymous memory and mapped by another.

Covers: which processes open it, by turns. Does not cover searching (`measured.index_reader`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from membudget_cli.profile.outside import MeasuredProgram
from membudget_cli.profile.results import IndexRun, MappedIndexes
from membudget_engine.index.generations import find_newest_generation

RUNS: Final = 5
QUICK_RUNS: Final = 1
QUERIES: Final = 1_000
QUICK_QUERIES: Final = 200
KINDS: Final = ("loaded", "mapped")


def measure_mapped_index(collection: Path, folder: Path, tell: Callable[[str], None], *, quick: bool) -> MappedIndexes:
    """`collection`: a folder with a good generation. Raises ProgramFailed."""
    found = find_newest_generation(collection).found
    assert found is not None, "it was built a moment ago"
    queries = QUICK_QUERIES if quick else QUERIES
    turns = QUICK_RUNS if quick else RUNS
    runs: list[IndexRun] = []
    for turn in range(1, turns + 1):
        for kind in KINDS:
            tell(f"mmap: {kind} ({turn} of {turns})")
            runs.append(_run(kind, collection, queries, folder))
    manifest = found.manifest
    return MappedIndexes(manifest.index_bytes, manifest.count, manifest.dimension, queries, tuple(runs))


def _run(kind: str, collection: Path, queries: int, folder: Path) -> IndexRun:
    with MeasuredProgram("index_reader", [kind, str(collection), str(queries)], folder) as program:
        empty = program.stage("empty").anonymous_bytes
        opened = program.stage("open")
        searched = program.stage("searched")
    p50, p90 = searched.figures
    return IndexRun(kind, opened.anonymous_bytes - empty, searched.anonymous_bytes - empty, p50, p90)
