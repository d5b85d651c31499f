"""Fills a chunk store, then waits: another process reads this one's anonymous memory.

Usage: fill_chunks.py KIND FOLDER CHUNKS_FILE COUNT. KIND: `memory`, `database`, or `objects`, a dict of plain objects
for comparison. CHUNKS_FILE has a chunk as JSON on each line; it is read again, under new ids and paths, until COUNT are
kept. Says `empty 0`, `full REPORTED_BYTES`, `looked LOOKUPS_PER_SECOND` of processor time, `closed 0`; goes on from
each when a line comes in. Before `empty` a store of the same kind was filled with some chunks and closed, so that what
the interpreter and SQLite load at their first use counts for no chunk.
"""

import gc
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from membudget_engine.stores.code_chunk import CodeChunk, CodeChunkStore
from membudget_engine.stores.database_chunks import DatabaseChunkStore
from membudget_engine.stores.memory_chunks import MemoryChunkStore
from membudget_runtime.memory_runtime import MemoryRuntime

LOOKED_UP = 10_000
IDS = 1_000
"""Of the chunks, evenly spread: the list of all would be on the heap beside them."""
BATCH = 50
WARM_UP = 2_000


def chunks(file: Path, count: int) -> Iterator[CodeChunk]:
    """So many chunks, one at a time."""
    return islice(_endless(file), count)


def _endless(file: Path) -> Iterator[CodeChunk]:
    turn = 0
    while True:
        with file.open("rb") as lines:
            for line in lines:
                chunk = msgspec.json.decode(line, type=CodeChunk)
                if turn:
                    # An odd factor: ids of one turn differ from each other and, by far, from those of the others.
                    identity = (int(chunk.id, 16) * (2 * turn + 1) + turn) % (1 << 64)
                    chunk = msgspec.structs.replace(chunk, id=f"{identity:016x}", path=f"copy{turn}/{chunk.path}")
                yield chunk
        turn += 1


class Objects:
    """What one writes without thinking of bytes."""

    def __init__(self) -> None:
        self._chunks: dict[str, CodeChunk] = {}

    def __len__(self) -> int:
        return len(self._chunks)

    def save(self, saved: Iterator[CodeChunk]) -> None:
        """Keep the objects."""
        for chunk in saved:
            self._chunks[chunk.id] = chunk

    def get(self, chunk_id: str) -> CodeChunk | None:
        """The object."""
        return self._chunks.get(chunk_id)

    def close(self) -> None:
        """Forget them."""
        self._chunks = {}


def main(kind: str, folder: str, chunks_file: str, count: str) -> None:
    """Fill, look up, close, and say what the store reports."""
    runtime = MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": "4Gi"})
    warm_up = _store(kind, runtime, Path(folder, "warm-up.sqlite"), "warmUp")
    _fill(warm_up, Path(chunks_file), WARM_UP)
    _look_up(warm_up, Path(chunks_file), WARM_UP)
    warm_up.close()
    store = _store(kind, runtime, Path(folder, "chunks.sqlite"), "chunkStore")
    _say(runtime, "empty", 0)
    _fill(store, Path(chunks_file), int(count))
    _say(runtime, "full", store.owned_bytes() if isinstance(store, MemoryChunkStore) else 0)
    _say(runtime, "looked", _look_up(store, Path(chunks_file), int(count)))
    store.close()
    _say(runtime, "closed", 0)


def _store(kind: str, runtime: MemoryRuntime, file: Path, name: str) -> CodeChunkStore | Objects:
    match kind:
        case "memory":
            return MemoryChunkStore(runtime, name=name)
        case "database":
            return DatabaseChunkStore(file)
        case _:
            return Objects()


def _fill(store: CodeChunkStore | Objects, file: Path, count: int) -> None:
    saved = chunks(file, count)
    while batch := [*islice(saved, BATCH)]:
        store.save(iter(batch))
    assert len(store) == count


def _look_up(store: CodeChunkStore | Objects, file: Path, count: int) -> int:
    ids = [chunk.id for chunk in islice(chunks(file, count), 0, None, -(-count // IDS))]
    asked = random.Random(1).choices(ids, k=LOOKED_UP)
    started = time.process_time()
    for chunk_id in asked:
        assert store.get(chunk_id) is not None
    return round(len(asked) / (time.process_time() - started))


def _say(runtime: MemoryRuntime, word: str, figure: int) -> None:
    gc.collect()
    runtime.ledger.trim()
    sys.stdout.write(f"{word} {figure}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
