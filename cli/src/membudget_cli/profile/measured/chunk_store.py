"""Fills a store of code chunks, asks it, closes it. Usage: chunk_store KIND FOLDER LINES COUNT.

KIND: `memory` and `database` are the engine's stores, `objects` is a dict of plain objects, what one writes without
thinking of bytes. LINES has a chunk as JSON on each line; it is read again, under new ids and paths, until COUNT are
kept. Stands still at `empty`, `full REPORTED_BYTES`, `looked LOOKUPS_PER_SECOND` (of processor time) and `closed`.
Before `empty` a store of the same kind was filled and closed: what an interpreter and SQLite load at their first use
counts for no chunk.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count as numbers
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from membudget_cli.profile.measured.stages import stand_still
from membudget_contract.decoding import decode_json
from membudget_engine.stores.code_chunk import CodeChunk, CodeChunkStore
from membudget_engine.stores.database_chunks import DatabaseChunkStore
from membudget_engine.stores.memory_chunks import MemoryChunkStore
from membudget_runtime.memory_runtime import MemoryRuntime

LOOKED_UP: Final = 10_000
IDS: Final = 1_000
"""Of the chunks, evenly spread: a list of all would be on the heap beside them."""
BATCH: Final = 50
WARM_UP: Final = 2_000


class Objects:
    """Chunks by id, as objects."""

    def __init__(self) -> None:
        self._chunks: dict[str, CodeChunk] = {}

    def save(self, saved: Iterable[CodeChunk]) -> None:
        """Keep them."""
        for chunk in saved:
            self._chunks[chunk.id] = chunk

    def get(self, chunk_id: str) -> CodeChunk | None:
        """The object."""
        return self._chunks.get(chunk_id)

    def close(self) -> None:
        """Forget them."""
        self._chunks = {}


def main(kind: str, folder: str, lines: str, count: str) -> None:
    """Fill, ask, close."""
    runtime = MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": "4Gi"})
    warm_up = _store(kind, runtime, Path(folder, "warm-up.sqlite"), "warmUp")
    _fill(warm_up, Path(lines), WARM_UP)
    _lookups_per_second(warm_up, Path(lines), WARM_UP)
    warm_up.close()
    store = _store(kind, runtime, Path(folder, "chunks.sqlite"), "chunkStore")
    _stand_still(runtime, "empty")
    _fill(store, Path(lines), int(count))
    _stand_still(runtime, "full", store.owned_bytes() if isinstance(store, MemoryChunkStore) else 0)
    _stand_still(runtime, "looked", _lookups_per_second(store, Path(lines), int(count)))
    store.close()
    _stand_still(runtime, "closed")


def _store(kind: str, runtime: MemoryRuntime, file: Path, name: str) -> CodeChunkStore | Objects:
    if kind == "memory":
        return MemoryChunkStore(runtime, name=name)
    return DatabaseChunkStore(file) if kind == "database" else Objects()


def _chunks(file: Path) -> Iterator[CodeChunk]:
    for turn in numbers():
        with file.open("rb") as lines:
            for line in lines:
                chunk = decode_json(line, CodeChunk)
                if turn:
                    # An odd factor: ids of one turn differ from each other and, by far, from those of the others.
                    identity = (int(chunk.id, 16) * (2 * turn + 1) + turn) % (1 << 64)
                    chunk = msgspec.structs.replace(chunk, id=f"{identity:016x}", path=f"copy{turn}/{chunk.path}")
                yield chunk


def _fill(store: CodeChunkStore | Objects, file: Path, count: int) -> None:
    saved = islice(_chunks(file), count)
    while batch := [*islice(saved, BATCH)]:
        store.save(batch)


def _lookups_per_second(store: CodeChunkStore | Objects, file: Path, count: int) -> float:
    ids = [chunk.id for chunk in islice(_chunks(file), 0, count, -(-count // IDS))]
    asked = random.Random(1).choices(ids, k=LOOKED_UP)  # noqa: S311  a trace, not a secret
    started = time.process_time()
    found = sum(store.get(chunk_id) is not None for chunk_id in asked)
    seconds = time.process_time() - started
    if found != LOOKED_UP:
        sys.exit(f"{LOOKED_UP - found} of {LOOKED_UP} chunks were not found again")
    return LOOKED_UP / seconds


def _stand_still(runtime: MemoryRuntime, word: str, *figures: float) -> None:
    runtime.ledger.trim()
    stand_still(word, *figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
