"""200,000 vectors of 512 in 150 MB: the compact index beside FAISS, loaded and mapped, and usearch's view.

Every figure comes from a process of its own in a real memory cgroup, and none of the files it reads is in the page
cache before. The vectors are synthetic: 4,000 clusters of very different sizes whose places have the standard
deviation i^-0.65, normalised, seed 1; embeddings of a real model may be easier or harder. There are 20,000 different
queries from the same clusters, seed 2, asked at random: a thousand that come again and again would leave most rows
cold. They belong to the load generator, so they are not charged to the cgroup. Recall is that of the first 1,000.

Needs root and a machine on which cgroups can be made; takes about 5 minutes, and 2 GB of disk below TMPDIR.
usearch is measured when it is installed. The table and its picture go into docs/compact.md. MB are MiB.

    python benches/compact_index.py [FOLDER OF WHAT WAS PREPARED BEFORE]
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np

from measuring import MIB, anonymous_bytes, put_section, resident_bytes, table_text
from membudget_engine.embedder import Vectors
from membudget_engine.index.compact import CompactIndex, compared
from membudget_engine.index.compact_build import write_compact_index
from membudget_engine.index.compact_codes import RotatedQuery
from membudget_engine.index.faiss_reader import read_loaded, read_mapped
from membudget_engine.index.faiss_writer import ListLayout, write_faiss_index
from membudget_engine.index.manifest import (
    CODES_FILE,
    INDEX_FILE,
    ORDER_FILE,
    ROWS_FILE,
    VECTORS_FILE,
    Manifest,
    entry_of,
    read_manifest,
    write_manifest,
)
from membudget_engine.index.recall import recall
from membudget_engine.settings import processors, query_workers

COUNT = 200_000
DIMENSION = 512
CLUSTERS = 4_000
QUERIES = 20_000
JUDGED = 1_000
HITS = 10
THREADS = query_workers(waiting_for_rows=True)
"""That ask, as many as the workers of an engine with a Compact collection.

To loaded FAISS it makes no difference: the processors are busy.
"""
WARMING_SECONDS = 4.0
MEASURED_SECONDS = 6.0
ROUNDS = 3
USEARCH_FILE = "usearch.f16"
PAGE = Path(__file__).parents[1] / "docs" / "compact.md"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "compact.png"

Search = Callable[[Vectors], Any]


@dataclass(frozen=True)
class Contender:
    """One line of the table: what serves, how widely it looks, and in how much memory."""

    name: str
    kind: str
    nprobe: int
    rerank: int
    limit_mb: int | None
    margin: float | None = None

    @property
    def asked(self) -> str:
        """Lists and rows that a query looks into."""
        within = "" if self.margin is None else f" within {self.margin:.3f}"
        return f"{self.nprobe}{within} / {self.rerank}"


def contenders(built: Manifest) -> tuple[Contender, ...]:
    """All, in the order of the table; Compact as it was built, and wider."""
    return (
        Contender("FAISS float32, loaded", "loaded", 28, 0, None),
        as_built(built, 150),
        Contender("FAISS float32, loaded", "loaded", 60, 0, None),
        Contender("Compact", "compact", 100, 30, 150, 0.205),
        as_built(built, 75),
        Contender("FAISS float32, loaded", "loaded", 28, 0, 150),
        Contender("FAISS float32, IO_FLAG_MMAP_IFC", "mapped", 28, 0, 150),
        Contender("usearch float16, view", "usearch", 128, 0, 150),
    )


def as_built(built: Manifest, limit_mb: int) -> Contender:
    """Compact, as widely as its builder found it enough."""
    return Contender("Compact", "compact", built.nprobe, built.rerank, limit_mb, built.probe_margin)


def clustered(count: int, seed: int) -> Iterator[Vectors]:
    """Unit vectors in blocks of 20,000; the clusters are the same for every seed."""
    of_clusters = np.random.default_rng(1)
    spread = (np.arange(1, DIMENSION + 1) ** -0.65).astype(np.float32)
    spread /= np.linalg.norm(spread)
    centres = of_clusters.standard_normal((CLUSTERS, DIMENSION), dtype=np.float32) * spread
    sizes = of_clusters.pareto(1.5, CLUSTERS) + 0.2
    generator = np.random.default_rng((seed, 1))
    for first in range(0, count, 20_000):
        rows = min(20_000, count - first)
        own = generator.choice(CLUSTERS, rows, p=sizes / sizes.sum())
        block = centres[own] + generator.standard_normal((rows, DIMENSION), dtype=np.float32) * spread
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def prepare(folder: Path) -> None:
    """Vectors, queries with their true neighbours, and every index."""
    with (folder / VECTORS_FILE).open("wb") as stream:
        for block in clustered(COUNT, seed=1):
            stream.write(block.data)
    queries = np.concatenate(list(clustered(QUERIES, seed=2)))
    np.save(folder / "queries.npy", queries)
    vectors = np.memmap(folder / VECTORS_FILE, dtype=np.float32, mode="r", shape=(COUNT, DIMENSION))
    exact = faiss.IndexFlatIP(DIMENSION)
    exact.add(vectors)
    np.save(folder / "neighbours.npy", exact.search(queries[:JUDGED], HITS)[1])
    del exact
    _write(folder, "exact", (INDEX_FILE,), write_faiss_index)
    _write(folder, "compact", (CODES_FILE, ROWS_FILE, ORDER_FILE), write_compact_index)
    if importlib.util.find_spec("usearch"):
        peer = importlib.import_module("usearch.index").Index(ndim=DIMENSION, metric="ip", dtype="f16", connectivity=16)
        peer.add(np.arange(COUNT), vectors, threads=processors())
        peer.save(str(folder / USEARCH_FILE))


def _write(folder: Path, name: str, files: Sequence[str], write: Callable[..., ListLayout]) -> None:
    own = folder / name
    own.mkdir()
    (own / VECTORS_FILE).hardlink_to(folder / VECTORS_FILE)
    started = time.monotonic()
    layout = write(own, count=COUNT, dimension=DIMENSION, threads=processors())
    print(f"{name}: built in {time.monotonic() - started:.0f} s, {layout}", flush=True)
    manifest = Manifest(
        collection=name, generation=1, count=COUNT, dimension=DIMENSION, index_type=layout.index_type,
        nlist=layout.nlist, nprobe=layout.nprobe, probe_margin=layout.probe_margin,
        representation="Compact" if name == "compact" else "Exact",
        code_bits=layout.code_bits, rerank=layout.rerank, recall=layout.recall, embedder="clustered-512-v1",
        created=datetime.now(UTC), files={file: entry_of(own / file) for file in files},
    )  # fmt: skip
    write_manifest(own, manifest)


def measure(folder: Path, contender: Contender) -> dict[str, float]:
    """In the process that is measured: recall, then all threads at once for some seconds."""
    faiss.omp_set_num_threads(1)
    # Not as numpy's memmap: a subclass is asked by every operation on what comes of it, and none of that is the index.
    queries: Vectors = np.asarray(np.load(folder / "queries.npy", mmap_mode="r"))
    search = _opened(folder, contender)
    neighbours = np.load(folder / "neighbours.npy")
    # A crawling index must not crawl a thousand times: what a minute answers is judged.
    found: list[Any] = []
    until = time.monotonic() + 60.0
    while len(found) < JUDGED and time.monotonic() < until:
        found.append(search(queries[len(found) : len(found) + 1])[0])
    _load(search, queries, WARMING_SECONDS)
    before = time.process_time()
    seconds, times = _load(search, queries, MEASURED_SECONDS)
    worked = time.process_time() - before
    p50, p99 = np.percentile(times, (50, 99)).tolist()
    return {
        "rate": len(times) / seconds,
        "cpu_us": 1e6 * worked / len(times),
        "p50_ms": 1000 * p50,
        "p99_ms": 1000 * p99,
        "recall": recall(np.stack(found), neighbours[: len(found)]),
        "anonymous": anonymous_bytes() / MIB,
        "resident": resident_bytes() / MIB,
    }


def _opened(folder: Path, contender: Contender) -> Search:
    if contender.kind == "usearch":
        peer = importlib.import_module("usearch.index").Index.restore(str(folder / USEARCH_FILE), view=True)
        peer.expansion_search = contender.nprobe
        return lambda query: peer.search(query, HITS, threads=1).keys.reshape(1, -1).astype(np.int64)
    if contender.kind == "compact":
        manifest = read_manifest(folder / "compact")
        asked = msgspec.structs.replace(
            manifest, nprobe=contender.nprobe, probe_margin=contender.margin, rerank=contender.rerank
        )
        return _segment_search(CompactIndex.open(folder / "compact", asked), contender.rerank)
    read = read_loaded if contender.kind == "loaded" else read_mapped
    index = read(folder / "exact" / INDEX_FILE, read_manifest(folder / "exact"))
    assert isinstance(index, faiss.IndexIVFFlat)
    index.nprobe = contender.nprobe
    return lambda query: index.search(query, HITS)[1]


def _segment_search(index: CompactIndex, rerank: int) -> Search:
    """As the engine asks a segment, of which it may have several: candidates by code, then their rows compared."""

    def search(query: Vectors) -> Any:
        scores, (rows,) = compared(query[0], [index.candidates(RotatedQuery(query), rerank)])
        return rows[(-scores).argsort(kind="stable")[:HITS]].reshape(1, -1)

    return search


def _load(search: Search, queries: Vectors, seconds: float) -> tuple[float, list[float]]:
    """Random queries on every thread; the seconds that passed, and how long each took."""
    times: list[list[float]] = [[] for _ in range(THREADS)]
    started = time.perf_counter()

    def ask(number: int) -> None:
        rows = np.random.default_rng(number).integers(QUERIES, size=100_000, dtype=np.int32)
        for row in rows:
            began = time.perf_counter()
            if began - started >= seconds:
                return
            search(queries[row : row + 1])
            times[number].append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started, [one for own in times for one in own]


def in_cgroup(folder: Path, contender: Contender) -> dict[str, float] | None:
    """The figures of one contender in a cgroup of its limit; None when the kernel killed it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from memory_cgroup import memory_cgroup

    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".npy":
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (folder / "queries.npy").read_bytes()  # so that they are charged here
    limit = contender.limit_mb
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with memory_cgroup(None if limit is None else limit * MIB) as cgroup:
        argv = [sys.executable, __file__, str(folder), msgspec.json.encode(contender).decode()]
        process = cgroup.run(argv, stdout=subprocess.PIPE, text=True, env=environment)
        answer, _ = process.communicate()
        if cgroup.oom_kills():
            return None
        return {**json.loads(answer), "peak": cgroup.peak_usage() / MIB}


def main() -> None:
    """All contenders by turns, three rounds, medians; those that crawl or are killed once."""
    folders = tempfile.TemporaryDirectory() if len(sys.argv) == 1 else None
    folder = Path(folders.name if folders else sys.argv[1])
    if not (folder / "compact" / "manifest.json").exists():
        prepare(folder)
    asked = contenders(read_manifest(folder / "compact"))
    taken: list[list[dict[str, float] | None]] = [[] for _ in asked]
    for turn in range(ROUNDS):
        for number, contender in enumerate(asked):
            wanted = contender.kind == "compact" or (contender.kind == "loaded" and contender.limit_mb is None)
            if (contender.kind != "usearch" or (folder / USEARCH_FILE).exists()) and (wanted or turn == 0):
                taken[number].append(in_cgroup(folder, contender))
                print(contender, taken[number][-1], flush=True)
    if folders:
        folders.cleanup()
    medians = [_medians(figures) for figures in taken]
    columns = ["index", "limit", "probes / rerank", "recall@10", "queries/s", "CPU us/query", "p50 ms", "p99 ms",
               "anonymous MB", "peak of the cgroup MB"]  # fmt: skip
    rows = [_row(*pair) for pair in zip(asked, medians, strict=True)]
    text = f"{datetime.now(UTC):%Y-%m-%d}, load average {os.getloadavg()[2]:.0f} beside it; {table_text(columns, rows)}"
    print(text)
    put_section(PAGE, "compact_index", f"{text}\n\n{_ratios(medians)}")
    draw(asked, medians)


def _medians(figures: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    done = [one for one in figures if one is not None]
    return {key: statistics.median(one[key] for one in done) for key in done[0]} if done else None


def _row(contender: Contender, medians: dict[str, float] | None) -> list[object]:
    limit = "none" if contender.limit_mb is None else f"{contender.limit_mb} MB"
    names: list[object] = [contender.name, limit, contender.asked]
    if medians is None:
        return [*names, "killed", *["-"] * 6]
    return [*names, f"{medians['recall']:.3f}", _figure(medians["rate"]), round(medians["cpu_us"]),
            *(round(medians[key], 2) for key in ("p50_ms", "p99_ms")),
            *(round(medians[key]) for key in ("anonymous", "peak"))]  # fmt: skip


def _figure(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _ratios(medians: Sequence[dict[str, float] | None]) -> str:
    """Compact in its limit against float32 without one, at about the same recall: the second pair is wider."""
    lines: list[str] = []
    for loaded, compact in ((medians[0], medians[1]), (medians[2], medians[3])):
        assert loaded is not None
        assert compact is not None
        lines.append(
            f"- recall {compact['recall']:.3f} against {loaded['recall']:.3f}: "
            f"{compact['rate'] / loaded['rate']:.1f} times the queries a second, "
            f"{loaded['cpu_us'] / compact['cpu_us']:.1f} times the queries of a second of CPU, "
            f"in {compact['peak'] / loaded['peak']:.2f} of the memory"
        )
    return "\n".join(lines)


def draw(asked: Sequence[Contender], medians: Sequence[dict[str, float] | None]) -> None:
    """Queries a second against recall; the colour and the number beside a point are its cgroup's peak in MB."""
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    shown = [(who, one) for who, one in zip(asked, medians, strict=True) if one is not None]
    points = axes.scatter(
        [one["recall"] for _, one in shown], [one["rate"] for _, one in shown], s=90,
        c=[one["peak"] for _, one in shown], cmap="viridis_r",
    )  # fmt: skip
    for who, one in shown:
        axes.annotate(
            f"{who.name}, {one['peak']:.0f} MB", (one["recall"], one["rate"]),
            xytext=(0, -16 if one["peak"] < 100 else 8),  # the same index in less memory is right beneath
            textcoords="offset points", fontsize=8, ha="right" if one["recall"] > 0.98 else "left",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.margins(x=0.15, y=0.2)
    axes.set_xlabel("recall@10")
    axes.set_ylabel("queries a second")
    axes.set_title(f"{COUNT:,} x {DIMENSION}, {THREADS} query threads")
    figure.colorbar(points, label="peak of the cgroup, MB")
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Contender))))
    else:
        main()
