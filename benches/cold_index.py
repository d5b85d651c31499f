"""The first queries of an index that is on the disk only, with a read-ahead of 128 kB and with this machine's own.

Every figure comes from a process of its own, one thread, that opens an index on an ext4 of its own, mounted just
before: nothing of it is in the page cache. The ext4 is on a loop device that reads its image past the page cache, and
whose read-ahead can be set: 128 kB is what Linux gives most disks, this machine's own is that of the disk below TMPDIR.
Bytes are those that the loop device was asked for, by its stat. The median of three rounds, by turns.

Two ways of FAISS stand beside ours: `IO_FLAG_MMAP_IFC`, with which it asks for MADV_RANDOM, and `IO_FLAG_MMAP`. Ours is
measured once more with what it does not do (Exact: the lists of a query asked for before they are read) or without what
it does (Compact: rows asked for before). The files are not compared with their manifest first: that would read them.

Needs root and mkfs.ext4; takes two to five minutes, and 400 MB below TMPDIR. However it ends, nothing stays mounted.
The table goes into docs/compact.md.

    python benches/cold_index.py
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import faiss
import numpy as np

from measuring import MIB, in_fresh_process, put_section, table_text
from membudget_engine.embedder import Vectors
from membudget_engine.index import compact as compact_module
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.compact_build import write_compact_index
from membudget_engine.index.faiss_reader import ListedIndex, part_addresses, read_mapped
from membudget_engine.index.faiss_writer import ListLayout, write_faiss_index
from membudget_engine.index.float_rows import Parts
from membudget_engine.index.manifest import (
    INDEX_FILE,
    VECTORS_FILE,
    Manifest,
    entry_of,
    read_manifest,
    write_manifest,
)
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.index.page_advice import PAGE_BYTES
from membudget_engine.index.row_prefetch import RowPrefetch

COUNT: Final = 60_000
DIMENSION: Final = 256
CLUSTERS: Final = 1_000
QUERIES: Final = 200
HITS: Final = 10
ROUNDS: Final = 3
IMAGE_BYTES: Final = 320 * MIB
USUAL_KIB: Final = 128
"""VM_READAHEAD_PAGES of Linux, which most disks have."""
SECTOR_BYTES: Final = 512
"""Of the kernel's figures of a device, whatever its own are."""
PAGE: Final = Path(__file__).parents[1] / "docs" / "compact.md"

Search = Callable[[Vectors], object]


class Figures(NamedTuple):
    """Milliseconds, and bytes that the device was asked for by all queries and by the first one."""

    first: float
    p50: float
    p99: float
    read_bytes: float
    first_bytes: float


def clustered(count: int, seed: int) -> Vectors:
    """Unit vectors of clusters that are the same for every seed; the first places say the most."""
    spread = np.arange(1, DIMENSION + 1) ** -0.65
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIMENSION)) * spread
    generator = np.random.default_rng((seed, 1))
    rows = centres[generator.integers(CLUSTERS, size=count)] + generator.standard_normal((count, DIMENSION)) * spread
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def prepare(volume: Path) -> None:
    """An Exact and a Compact index of the same vectors, and the queries."""
    for name, write in (("exact", write_faiss_index), ("compact", write_compact_index)):
        _write(volume / name, write)
    np.save(volume / "queries.npy", clustered(QUERIES, seed=2))


def _write(folder: Path, write: Callable[..., ListLayout]) -> None:
    folder.mkdir()
    clustered(COUNT, seed=1).tofile(folder / VECTORS_FILE)
    lists = write(folder, count=COUNT, dimension=DIMENSION, threads=1)
    (folder / VECTORS_FILE).unlink()
    manifest = Manifest(
        collection="sample",
        generation=1,
        count=COUNT,
        dimension=DIMENSION,
        index_type=lists.index_type,
        nlist=lists.nlist,
        nprobe=lists.nprobe,
        probe_margin=lists.probe_margin,
        representation="Compact" if lists.code_bits else "Exact",
        code_bits=lists.code_bits,
        rerank=lists.rerank,
        recall=lists.recall,
        embedder="clustered",
        created=datetime.now(UTC),
        files={file.name: entry_of(file) for file in folder.iterdir()},
    )
    write_manifest(folder, manifest)


def exact(volume: Path) -> Search:
    """As the engine serves it."""
    folder = volume / "exact"
    index = MappedIndex.open(folder, read_manifest(folder))
    return lambda query: index.search(query, HITS)


def exact_asked_for(volume: Path) -> Search:
    """As the engine serves it, with one call more: all lists of a query are asked for before the first is read."""
    folder = volume / "exact"
    index = MappedIndex.open(folder, read_manifest(folder))
    # A second mapping of the same file: pages that are read for it are there for the other one too.
    beside = read_mapped(folder / INDEX_FILE, read_manifest(folder))
    assert isinstance(beside, ListedIndex)
    starts, ends = part_addresses(beside)
    starts = starts // PAGE_BYTES * PAGE_BYTES
    prefetch = RowPrefetch()

    def search(query: Vectors) -> object:
        _, (lists,) = beside.quantizer.search(query, beside.nprobe)
        prefetch.ask(np.stack((starts[lists], ends[lists] - starts[lists]), axis=1))
        return index.search(query, HITS)

    return search


def plain_ifc(volume: Path) -> Search:
    """FAISS alone, with the flag that the engine begins with."""
    index = faiss.read_index(str(volume / "exact" / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC)
    return lambda query: index.search(query, HITS)


def plain_mmap(volume: Path) -> Search:
    """FAISS alone, with its older flag."""
    index = faiss.read_index(str(volume / "exact" / INDEX_FILE), faiss.IO_FLAG_MMAP)
    return lambda query: index.search(query, HITS)


def compact(volume: Path) -> Search:
    """As the engine serves it."""
    folder = volume / "compact"
    index = CompactIndex.open(folder, read_manifest(folder))
    return lambda query: index.search(query, HITS)


def compact_not_asked_for(volume: Path) -> Search:
    """As the engine serves it, but rows are read one after the other."""
    compact_module.prefetch = _not_asked  # pyright: ignore[reportPrivateImportUsage]
    return compact(volume)


def _not_asked(_parts: Parts) -> None:
    """In place of a prefetch."""


CONTENDERS: Final[dict[str, Callable[[Path], Search]]] = {
    "FAISS, IO_FLAG_MMAP_IFC": plain_ifc,
    "FAISS, IO_FLAG_MMAP": plain_mmap,
    "Exact": exact,
    "Exact, lists asked for": exact_asked_for,
    "Compact, rows not asked for": compact_not_asked_for,
    "Compact": compact,
}


def measure(volume: str, device: str, name: str) -> Figures:
    """In a process of its own: opened, then every query once."""
    faiss.omp_set_num_threads(1)
    queries = np.load(Path(volume) / "queries.npy")
    # Brings in the code of libraries.
    faiss.IndexFlatIP(DIMENSION).search(queries, 1)
    search = CONTENDERS[name](Path(volume))
    before = _bytes_read(device)
    times, first_bytes = list[float](), 0
    for row in range(QUERIES):
        started = time.perf_counter()
        search(queries[row : row + 1])
        times.append(1000 * (time.perf_counter() - started))
        if not row:
            first_bytes = _bytes_read(device) - before
    cut = statistics.quantiles(times, n=100)
    return Figures(times[0], statistics.median(times), cut[98], _bytes_read(device) - before, first_bytes)


def _bytes_read(device: str) -> int:
    return int((Path("/sys/block") / Path(device).name / "stat").read_text().split()[2]) * SECTOR_BYTES


@contextmanager
def loop_device(image: Path) -> Generator[str]:
    """The image as a device that reads it past the page cache, until the block ends."""
    argv = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
    device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def mounted(device: str, folder: Path) -> Generator[Path]:
    """Its file system, with nothing of it in the page cache."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "ext4", "-o", "noatime", device, str(folder)], check=True)
    try:
        yield folder
    except BaseException:
        # A process that was interrupted may still hold it: it goes, and the device with it, when that one has ended.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        raise
    subprocess.run(["umount", str(folder)], check=True)


def own_read_ahead_kib(folder: Path) -> int:
    """Of the device that a folder is on."""
    number = folder.stat().st_dev
    return int(Path(f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb").read_text())


def measured(device: str, volume: Path, read_ahead_kib: int) -> dict[str, Figures]:
    """All contenders by turns; the median of each figure."""
    subprocess.run(["blockdev", "--setra", str(read_ahead_kib * 1024 // SECTOR_BYTES), device], check=True)
    rounds: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
    for number in range(ROUNDS):
        for name, figures in rounds.items():
            with mounted(device, volume):
                figures.append(in_fresh_process(measure, str(volume), device, name))
            print(f"{read_ahead_kib} kB, round {number + 1}, {name}: {figures[-1]}", file=sys.stderr, flush=True)
    return {name: Figures(*map(statistics.median, zip(*figures, strict=True))) for name, figures in rounds.items()}


def _ended(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Measures, prints, and puts the table into its page."""
    # A terminal's end and a service manager's stop clean up like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    with tempfile.TemporaryDirectory() as root:
        image, volume = Path(root) / "image", Path(root) / "volume"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
        with loop_device(image) as device:
            with mounted(device, volume):
                in_fresh_process(prepare, volume)
            own = own_read_ahead_kib(Path(root))
            found = {kib: measured(device, volume, kib) for kib in dict.fromkeys((USUAL_KIB, own))}
    text = _text(found)
    print(text)
    put_section(PAGE, "cold_index", text)


def _text(found: dict[int, dict[str, Figures]]) -> str:
    rows = [
        (f"{kib} kB", name, f.first, f.first_bytes / MIB, f.p50, f.p99, f.read_bytes / MIB)
        for kib, figures in found.items()
        for name, f in figures.items()
    ]
    columns = ("read-ahead", "index", "first query ms", "MB read for it", "p50 ms", "p99 ms", f"MB read by {QUERIES}")
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, load average {os.getloadavg()[0]:.0f}; {table_text(columns, rows)}", ""]
    for kib, figures in found.items():
        peer = figures["FAISS, IO_FLAG_MMAP_IFC"]
        for name in ("Exact", "Exact, lists asked for", "Compact"):
            ours = figures[name]
            lines.append(
                f"- {kib} kB, {name} to IO_FLAG_MMAP_IFC: first query {ours.first / peer.first:.2f}, "
                f"p50 {ours.p50 / peer.p50:.2f}, p99 {ours.p99 / peer.p99:.2f}, "
                f"bytes {ours.read_bytes / peer.read_bytes:.2f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
