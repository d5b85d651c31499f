"""What opening a mapped segment costs on the heap: its lists, and nothing that grows with rows or places.

So the figure of a collection (`memory_bytes`) is what it owns by itself, exact, and leaves this out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from engine.compact_folder import clustered_vectors
from engine.written import notes, written
from membudget_engine.catalog import anonymous_bytes
from membudget_engine.index.build import Plan, publish_next
from membudget_engine.index.delta import block_bytes
from membudget_engine.index.manifest import VECTORS_FILE, Representation
from membudget_engine.ingest.chunk import Chunk
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStoreWriter

SEGMENT_BYTES: Final = 64 * 1024
LIST_BYTES: Final = 400
"""Found: 15 to 18 kB without lists, 53 kB with 100: FAISS's places of each, and ours of its pages."""
SAME_BYTES: Final = 8 * 1024
"""Of two openings alike: names of other lengths, what Python made once."""

_OPENING: Final = """
import ctypes, gc, json, sys, tracemalloc
from pathlib import Path
import faiss, numpy
from membudget_engine.collection import open_generation
from membudget_engine.index.generations import find_newest_generation
from membudget_engine.stores.sqlite_memory import sqlite_bytes

class Mallinfo(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo

def heap():
    # What Python's own allocator holds is not malloc's: it comes in arenas of its own.
    gc.collect()
    now = libc.mallinfo2()
    return now.uordblks + now.hblkhd - sqlite_bytes(), tracemalloc.get_traced_memory()[0]

faiss.IndexFlatIP(4).search(numpy.zeros((1, 4), dtype="f"), 1)
tracemalloc.start()
figures = []
for folder in map(Path, [sys.argv[1], *sys.argv[1:]]):
    found = find_newest_generation(folder).found
    before = heap()
    opened = open_generation("core", found)
    after = heap()
    figures.append([after[0] - before[0], after[1] - before[1], found.manifest.nlist])
    opened.close()
    del opened
print(json.dumps(figures[1:]))  # the first one brings in the code of libraries
"""


def _built(folder: Path, count: int, dimension: int, representation: Representation) -> Path:
    def fill(building: Path) -> int:
        clustered_vectors(count, dimension, seed=1).tofile(building / VECTORS_FILE)
        with ChunkStoreWriter(building / CHUNKS_FILE) as store:
            store.add(Chunk(str(number), "", "", "text", "", "", (), "", 0, 0) for number in range(count))
            store.seal()
        return count

    folder.mkdir()
    publish_next(folder, Plan("core", f"given-{dimension}", dimension, 1, representation), fill)
    return folder


def test_opening_a_mapped_segment_costs_its_lists_and_neither_rows_nor_places(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E10: malloc's own count of a process that opens one after the other, without what SQLite counts."""
    kinds: list[tuple[Representation, int, int]] = [
        ("Exact", 1_000, 32), ("Exact", 9_000, 128), ("Int8", 9_000, 128), ("Exact", 10_000, 32),
    ]  # fmt: skip
    folders = [str(_built(tmp_path / f"{kind}-{rows}", rows, places, kind)) for kind, rows, places in kinds]
    ended = subprocess.run([sys.executable, "-c", _OPENING, *folders], capture_output=True, text=True, check=True)
    figures: list[tuple[int, int, int]] = json.loads(ended.stdout)
    taken = [malloc + objects for malloc, objects, _ in figures]
    lists = [count for _, _, count in figures]

    publish(
        "opening a mapped segment: "
        + ", ".join(
            f"{kind} {rows} x {places} in {count} lists {cost / 1024:.0f} kB"
            for (kind, rows, places), count, cost in zip(kinds, lists, taken, strict=True)
        )
    )
    assert lists == [0, 0, 0, 100]
    assert max(taken[:3]) - min(taken[:3]) < SAME_BYTES
    assert all(0 < cost <= SEGMENT_BYTES + LIST_BYTES * count for cost, count in zip(taken, lists, strict=True))


def test_the_figure_of_a_collection_is_what_it_owns_by_itself(tmp_path: Path) -> None:
    """R-E10: of several, each its own; together what the ledger has of them."""
    with written(tmp_path / "data", tmp_path / "state", background=False) as opened:
        opened.writer.upsert("core", notes(range(40), "first"))
        opened.writer.upsert("compact", notes(range(1_000), "first"), representation="Compact")
        core, compact = (opened.catalog.collections[name] for name in ("core", "compact"))
        codes = anonymous_bytes([compact])
        assert (anonymous_bytes([core]), codes > 0) == (0, True)

        opened.writer.upsert("core", notes(range(8), "second"))

        own = block_bytes(core.manifest.dimension) + 40 // 8
        assert [anonymous_bytes([one]) for one in opened.catalog.collections.values()] == [own, codes]
        assert opened.indexes.owned_bytes() == own + codes
