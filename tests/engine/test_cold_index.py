"""The first queries of an index that is on the disk only: how often they wait for it, by the kernel's count."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from engine.compact_folder import clustered_vectors, make_compact_folder
from loop_volume import make_image, mounted, require_loop_devices
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


_ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _waits(directory: Path, file: str, advice: str = "own") -> int:
    """Major faults of twenty queries: those for which the process stood still until the disk answered."""
    argv = [sys.executable, "-c", _COLD, str(directory), file, advice]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, env=_ONE_THREAD).stdout)


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


_READ = """
import json, os, pathlib, sys
import faiss, numpy
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.manifest import read_manifest
from membudget_engine.index.mapped import MappedIndex

directory, device = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
manifest = read_manifest(directory)
compact = manifest.representation == "Compact"
faiss.omp_set_num_threads(1)
query = numpy.load(directory / "queries.npy")[:1]
faiss.IndexFlatIP(4).search(numpy.zeros((1, 4), dtype="f"), 1)
index = (CompactIndex if compact else MappedIndex).open(directory, manifest)
probed = []
order = index._opened.pages.order
order.probed = lambda parts: probed.extend(numpy.unique(parts).tolist())

def sectors():
    return int((device / "stat").read_text().split()[2])

before = sectors()
index.search(query, 10)
read = 512 * (sectors() - before)
lists = int(sum(order._ends[part] - order._starts[part] for part in set(probed) if part >= 0))
print(json.dumps([read, 4096 * manifest.rerank if compact else lists]))
"""

USUAL_READ_AHEAD = 128 * 1024
"""What Linux gives most disks; this one's own may be much more, and would hide what is read too much."""
MOST_TIMES = {"exact": 4, "compact": 2}
"""Found: 2.8, lists of 140 kB with up to 128 kB around each, and the centroids; 1.0, the pages that rows are on."""


@pytest.mark.parametrize("kind", ["exact", "compact"])
def test_a_cold_query_reads_little_more_than_the_lists_or_rows_that_it_looks_at(
    tmp_path: Path, exact: Path, kind: str, publish: Callable[[str], None]
) -> None:
    """R-E01: bytes by the count of a disk of its own, nothing cached."""
    require_loop_devices()
    source = exact if kind == "exact" else make_compact_folder(tmp_path / "compact", 8_000, 512).directory
    if kind == "compact":
        np.save(source / "queries.npy", clustered_vectors(1, 512, seed=2))
    image, folder = tmp_path / "image", tmp_path / "volume"
    make_image(image, 96 * 1024 * 1024)
    with mounted(image, folder, "noatime", past_the_page_cache=True):
        shutil.copytree(source, folder / "index", ignore=shutil.ignore_patterns(VECTORS_FILE))
    with mounted(image, folder, "noatime", past_the_page_cache=True) as device:
        subprocess.run(["blockdev", "--setra", str(USUAL_READ_AHEAD // 512), f"/dev/{device}"], check=True)
        argv = [sys.executable, "-c", _READ, str(folder / "index"), f"/sys/block/{device}"]
        ended = subprocess.run(argv, capture_output=True, text=True, check=True, env=_ONE_THREAD)
    read, looked_at = json.loads(ended.stdout)

    publish(f"Cold {kind} index, the first query: {read} bytes read for {looked_at} that it looks at")
    assert 0 < read <= MOST_TIMES[kind] * looked_at
