"""Fills a vector store, then waits: another process reads this one's anonymous memory.

Usage: fill_vectors.py FOLDER VECTORS. 512 places each. Says `empty 0`, `full REPORTED`, `cooled REPORTED` after half of
its bytes were evicted, `closed 0`; goes on from each when a line comes in.
"""

import sys
from pathlib import Path

import numpy as np

from membudget_contract.control_api import FreeRequest, Means
from membudget_engine.stores.vector_store import VectorStore
from membudget_runtime.memory_runtime import MemoryRuntime

DIMENSION = 512


def main(folder: str, vectors: str) -> None:
    """Fill, evict, close, and say what the store reports."""
    runtime = MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": "4Gi"})
    store = VectorStore(runtime, Path(folder), DIMENSION)
    drawn = np.random.default_rng(1)
    store.put(b"warm-up", drawn.standard_normal(DIMENSION, dtype=np.float32))
    store.get(b"warm-up")
    store.remove(b"warm-up")
    _say(runtime, "empty", 0)
    for number in range(int(vectors)):
        store.put(b"vector %010d" % number, drawn.standard_normal(DIMENSION, dtype=np.float32))
    _say(runtime, "full", store.owned_bytes())
    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=store.owned_bytes() // 2))
    _say(runtime, "cooled", store.owned_bytes())
    store.close()
    _say(runtime, "closed", 0)


def _say(runtime: MemoryRuntime, word: str, figure: int) -> None:
    runtime.ledger.trim()
    sys.stdout.write(f"{word} {figure}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
