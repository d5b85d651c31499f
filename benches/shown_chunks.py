"""Ten chunks as an answer shows them: from the texts of a generation, from its chunk store, and whole answers inflated.

The corpus is the standard library of the running Python (over 10,000 chunks), built first; everything is in the page
cache. Each row is one process, which asks the same random rows: processor time of ten chunks as JSON.
"""

from __future__ import annotations

import random
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from measuring import MIB, in_fresh_process, table
from membudget_engine.build_command import build_sources
from membudget_engine.index.generations import find_newest_generation
from membudget_engine.stores.chunk_store import CHUNKS_FILE, ChunkStore
from membudget_engine.stores.chunk_texts import TEXTS_FILE, ChunkTexts

ANSWERS = 5_000
HITS = 10


def from_texts(folder: str) -> float:
    """As the engine does, without waiting for a disk; where the file system cannot say, by a plain read."""
    store, rows = _rows(folder)
    texts = ChunkTexts(Path(folder) / TEXTS_FILE, store.count())
    read = texts.held if texts.held(rows[0]) is not None else texts.get
    return _microseconds(lambda asked: b",".join(read(asked) or ()), rows)


def from_store(folder: str) -> float:
    """As it did before."""
    store, rows = _rows(folder)
    return _microseconds(lambda asked: msgspec.json.encode(store.get(asked)), rows)


def inflated(folder: str) -> float:
    """A whole answer as a cache would keep it."""
    store, rows = _rows(folder)
    kept = [zlib.compress(msgspec.json.encode(store.get(asked)), 1) for asked in rows[:500]]
    return _microseconds(lambda asked: zlib.decompress(kept[asked[0] % len(kept)]), rows)


def _rows(folder: str) -> tuple[ChunkStore, list[list[int]]]:
    store = ChunkStore(Path(folder) / CHUNKS_FILE)
    drawn = random.Random(1)
    return store, [[drawn.randrange(store.count()) for _ in range(HITS)] for _ in range(ANSWERS)]


def _microseconds(show: Callable[[Sequence[int]], object], rows: Sequence[Sequence[int]]) -> float:
    """The second time, when everything is where it was."""
    took = 0.0
    for _ in range(2):
        started = time.process_time()
        for asked in rows:
            show(asked)
        took = time.process_time() - started
    return 1e6 * took / len(rows)


def build(folder: str) -> tuple[str, str]:
    """The newest generation of the standard library, and how large it is."""
    build_sources(Path(folder), ["stdlib"])
    found = find_newest_generation(Path(folder) / "stdlib").found
    assert found is not None
    sizes = (f"{name} {found.manifest.files[name].bytes / MIB:.1f} MiB" for name in (TEXTS_FILE, CHUNKS_FILE))
    return str(found.directory), f"{found.manifest.count:,} chunks: {', '.join(sizes)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        generation, told = in_fresh_process(build, root)
        kinds = (("texts", from_texts), ("chunk store", from_store), ("a whole answer, inflated", inflated))
        took = [(name, in_fresh_process(measure, generation)) for name, measure in kinds]
    rows = [(name, microseconds, microseconds / took[0][1]) for name, microseconds in took]
    table(f"Ten of {told}", ("from", "CPU us", "times that of texts"), rows)
