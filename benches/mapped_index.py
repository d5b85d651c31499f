"""The mapped index beside the same file loaded: anonymous memory, and the time of a query.

The corpus is the standard library of the running Python (over 10,000 chunks), built first.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import faiss

from measuring import MIB, anonymous_bytes, in_fresh_process, table
from membudget_engine.build_command import build_sources
from membudget_engine.embedder import HashingEmbedder, Vectors
from membudget_engine.index.generations import find_newest_generation
from membudget_engine.index.manifest import INDEX_FILE, read_manifest
from membudget_engine.index.mapped import MappedIndex

QUERIES = 500
HITS = 10


def loaded(folder: str) -> tuple[float, float]:
    """FAISS's own default: the whole index in anonymous memory."""
    faiss.omp_set_num_threads(1)
    vectors = _query_vectors()
    before = anonymous_bytes()
    index = faiss.read_index(str(Path(folder) / INDEX_FILE))
    grown = anonymous_bytes() - before
    return grown / MIB, _p50([partial(index.search, vectors[row : row + 1], HITS) for row in range(QUERIES)])


def mapped(folder: str) -> tuple[float, float]:
    """As the engine serves it, warm."""
    faiss.omp_set_num_threads(1)
    vectors = _query_vectors()
    before = anonymous_bytes()
    index = MappedIndex.open(Path(folder), read_manifest(Path(folder)))
    grown = anonymous_bytes() - before
    index.warm()
    searches = [partial(index.search, vectors[row : row + 1], HITS) for row in range(QUERIES)]
    return grown / MIB, _p50(searches)


def _query_vectors() -> Vectors:
    return HashingEmbedder().embed([f"open file number {number} of the pool" for number in range(QUERIES)])


def _p50(searches: Sequence[Callable[[], object]]) -> float:
    times: list[float] = []
    for search in searches:
        started = time.perf_counter()
        search()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def build(folder: str) -> str:
    """The newest generation of the standard library."""
    build_sources(Path(folder), ["stdlib"])
    found = find_newest_generation(Path(folder) / "stdlib").found
    assert found is not None
    return str(found.directory)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        generation = in_fresh_process(build, root)
        figures = {
            name: in_fresh_process(measure, generation) for name, measure in (("loaded", loaded), ("mapped", mapped))
        }
    saved = 100 * (1 - figures["mapped"][0] / figures["loaded"][0])
    ratio = figures["mapped"][1] / figures["loaded"][1]
    table(
        "Mapped index beside the loaded one",
        ("index", "anonymous MiB", "p50 ms"),
        [(n, *f) for n, f in figures.items()],
    )
    print(f"\n{saved:.1f} % less anonymous memory, {ratio:.2f} times the latency")
