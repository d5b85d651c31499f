"""What sealing costs in bytes, and what segments cost a query: 40,000 vectors of 256 places, written 1,000 at a time.

Bytes are those of this process's write calls (wchar of /proc/self/io): the log, its checkpoints, segments, manifests.
The peer is the same engine made to copy everything at each seal, as it did before it had segments. Updates replace rows
drawn at random. A query costs the processor time of this process, other threads that it wakes included: the median of
300 on warm pages, as a ratio to one segment of the same rows, beside recall@10 against exact truth. What of the ratio
is work says the share of rows that a query scores: a segment of Exact below 10,000 rows has no lists, and all of it is.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from measuring import in_fresh_process, table
from membudget_engine.catalog import Catalog
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.manifest import Representation
from membudget_engine.index.recall import recall
from membudget_engine.index.segment_merging import run_to_merge
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.served_indexes import ServedIndexes
from membudget_engine.writer import Writer
from membudget_runtime.memory_runtime import MemoryRuntime

DIMENSION = 256
NAME = "core"

_Vectors = npt.NDArray[np.float32]


@contextmanager
def opened(folder: Path) -> Generator[tuple[Writer, Catalog]]:
    """A writer that seals and merges when it is told to."""
    (folder / "data").mkdir()
    with (
        closing(MemoryRuntime(folder / "state", {"MEMBUDGET_TOTAL": "4Gi"})) as runtime,
        closing(Catalog({})) as catalog,
    ):
        indexes = ServedIndexes(catalog, runtime.ledger, 0, time.monotonic)
        runtime.register(indexes)
        writer = Writer(folder / "data", HashingEmbedder(DIMENSION), indexes, runtime.ledger, left=lambda _: None)
        with closing(writer):
            yield writer, catalog


def clustered(rows: int) -> _Vectors:
    """Vectors of 200 clusters."""
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((200, DIMENSION), dtype=np.float32)
    return centres[generator.integers(200, size=rows)] + generator.standard_normal((rows, DIMENSION), dtype=np.float32)


def chunks(numbers: list[int]) -> list[Chunk]:
    """With no text to speak of: what is measured is vectors."""
    return [Chunk(f"chunk-{n}", "a.py", "f", "function", "", "", (), "x", 1, 1) for n in numbers]


def written_bytes() -> int:
    """By this process's calls, to files of any kind."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def amplification(rows: int, at_once: int, updates: int, copying: bool) -> tuple[float, float, int]:
    """Bytes written for each byte of vectors, all and those of seals and compactions, and segments in the end."""
    vectors = clustered(rows)
    draw = np.random.default_rng(2)
    given = 0
    with tempfile.TemporaryDirectory(dir=".") as folder, opened(Path(folder)) as (writer, catalog):
        before = written_bytes()
        for first in range(0, rows + updates, at_once):
            new = first < rows
            numbers = [*range(first, first + at_once)] if new else draw.permutation(rows)[:at_once].tolist()
            writer.upsert(NAME, chunks(numbers), vectors[numbers])
            given += len(numbers)
            writer.seal(NAME)
            if copying:
                writer.compact(NAME)
            else:
                writer.publishing.compact(writer.held.take(NAME), run_to_merge)
        total = written_bytes() - before
        published = sum(writer.publishing.written_bytes.values())
        segments = len(catalog.collections[NAME].segments)
    return total / (given * DIMENSION * 4), published / (given * DIMENSION * 4), segments


def query_cost(rows: int, sizes: list[int], representation: Representation) -> tuple[float, float, float]:
    """Of queries for ten hits, in segments of these shares of the rows.

    Median milliseconds of processor time, recall@10, and the share of rows scored by vector or code.
    """
    vectors = clustered(rows)
    with tempfile.TemporaryDirectory(dir=".") as folder, opened(Path(folder)) as (writer, catalog):
        end = 0
        for number, share in enumerate(sizes):
            first, end = end, end + share * rows // sum(sizes)
            for start in range(first, end, 4_000):
                numbers = [*range(start, min(end, start + 4_000))]
                writer.upsert(NAME, chunks(numbers), vectors[numbers], representation=representation)
                writer.seal(NAME)
            held = writer.held.take(NAME)
            writer.publishing.compact(held, lambda found, _, begin=number: range(begin, len(found)))
        collection = catalog.collections[NAME]
        assert len(collection.segments) == len(sizes)
        took: list[float] = []
        found: list[list[int]] = []
        queries = clustered(400)
        for query in queries:
            started = time.process_time()
            hits = collection.find(query[None], 10)
            took.append(time.process_time() - started)
            found.append([row for _, row in hits])
        scored = sum(
            one.count * (one.nprobe / one.nlist if one.nlist else 1)
            for one in (segment.folder.manifest for segment in collection.segments)
        )
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    return 1000 * statistics.median(took[100:]), recall(np.array(found), truth), scored / rows


def main(rows: int = 40_000, at_once: int = 1_000) -> None:
    """All tables."""
    table(
        f"Bytes written for each byte of vectors: {rows} x {DIMENSION}, {at_once} at a time",
        ("", "all writes", "seals and compactions", "segments in the end"),
        [
            (what, *in_fresh_process(amplification, rows, at_once, updates, copying))
            for what, updates, copying in (
                ("added, segments", 0, False),
                ("added, everything copied at each seal", 0, True),
                ("as many updates as rows, segments", rows, False),
            )
        ],
    )
    layouts = (("one", [1]), ("4, equal", [1] * 4), ("16, equal", [1] * 16), ("1 of 9/10 and 15", [135, *[1] * 15]))
    for representation in ("Exact", "Int8", "Compact"):
        costs = [in_fresh_process(query_cost, rows, sizes, representation) for _, sizes in layouts]
        one = costs[0][0]
        table(
            f"{representation}: processor time of a query, median, to one segment of {rows} rows ({one:.2f} ms)",
            ("segments", "ratio", "recall@10", "rows scored, %"),
            [
                (what, took / one, f"{found:.4f}", 100 * scored)
                for (what, _), (took, found, scored) in zip(layouts, costs, strict=True)
            ],
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
