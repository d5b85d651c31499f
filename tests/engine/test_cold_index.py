"""The first queries of an index that is on the disk only: how often they wait for it, by the kernel's count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from engine.compact_folder import clustered_vectors, make_compact_folder
from membudget_engine.index.faiss_writer import write_faiss_index
from membudget_engine.index.manifest import INDEX_FILE, ROWS_FILE, VECTORS_FILE, Manifest, entry_of, write_manifest

QUERIES = 20

_COLD = f"""
import json, os, pathlib, resource, sys
import faiss, numpy
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.manifest import read_manifest
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.index.page_advice import advise

directory, file, advice = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
manifest = read_manifest(directory)
faiss.omp_set_num_threads(1)
queries = numpy.load(directory / "queries.npy")
faiss.IndexFlatIP(4).search(numpy.zeros((1, 4), dtype="f"), 1)
index = (CompactIndex if manifest.representation == "Compact" else MappedIndex).open(directory, manifest)
if advice != "own":
    advise(index._opened.pages.mapping.range, int(advice))
index.search(queries[:1], 10)  # brings in the code of libraries
with open(directory / file, "rb") as stream:
    index.page_out(index.mapped_bytes())
    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
for query in queries[1:{QUERIES + 1}]:
    index.search(query[None], 10)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before))
"""


def _waits(directory: Path, file: str, advice: str = "own") -> int:
    """Major faults of twenty queries: those for which the process stood still until the disk answered."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    argv = [sys.executable, "-c", _COLD, str(directory), file, advice]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 vectors of 256 as float32: 20 MB, 141 lists of 35 pages or so."""
    directory = tmp_path_factory.mktemp("exact")
    clustered_vectors(20_000, 256, seed=1).tofile(directory / VECTORS_FILE)
    layout = write_faiss_index(directory, count=20_000, dimension=256, threads=1)
    manifest = Manifest(
        collection="sample", generation=1, count=20_000, dimension=256, index_type=layout.index_type,
        nlist=layout.nlist, nprobe=layout.nprobe, recall=layout.recall, embedder="clustered",
        created=datetime(2026, 11, 21, tzinfo=UTC), files={INDEX_FILE: entry_of(directory / INDEX_FILE)},
    )  # fmt: skip
    write_manifest(directory, manifest)
    np.save(directory / "queries.npy", clustered_vectors(300, 256, seed=2))
    subprocess.run(["sync", str(directory / INDEX_FILE)], check=True)
    return directory


def test_a_cold_list_is_read_with_its_neighbourhood_and_not_page_by_page(
    exact: Path, publish: Callable[[str], None]
) -> None:
    """R-E01: FAISS asks for MADV_RANDOM, which the opened index takes back."""
    ours, of_faiss = _waits(exact, INDEX_FILE), _waits(exact, INDEX_FILE, advice="1")

    publish(f"Cold exact index, {QUERIES} queries: {ours} waits for the disk, as FAISS maps it {of_faiss}")
    assert ours * 5 < of_faiss


def test_rows_of_a_cold_compact_index_are_asked_for_before_they_are_read(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E01: one prefetch for all 25 rows of a query; without it each of them would be a wait."""
    folder = make_compact_folder(tmp_path / "compact", 8_000, 512)
    np.save(folder.directory / "queries.npy", folder.queries)

    waits = _waits(folder.directory, ROWS_FILE)

    publish(f"Cold compact index, {QUERIES} queries of {folder.manifest.rerank} rows: {waits} waits for the disk")
    assert waits < QUERIES * folder.manifest.rerank // 2
