"""Fills an embedding cache, then waits: another process reads this one's anonymous memory.

Usage: fill_embeddings.py STATE_FOLDER FORM MAX_BYTES VECTORS. Says `empty 0 0 0`, then `full REPORTED HOT COLD`; goes
on from each when a line comes in. The vectors have 512 places; half of the texts are asked for again.
"""

import sys
from pathlib import Path

import numpy as np

from membudget_engine.caches.embedding_cache import EmbeddingCache
from membudget_engine.reduction.quantization import Float16, Int8, Quantization
from membudget_runtime.memory_runtime import MemoryRuntime

DIMENSION = 512
FORMS: dict[str, Quantization] = {"float16": Float16(), "int8": Int8()}


def main(state_folder: str, form: str, max_bytes: str, vectors: str) -> None:
    """Fill, and say what the cache reports."""
    runtime = MemoryRuntime(Path(state_folder), {"MEMBUDGET_TOTAL": "4Gi"})
    cache = EmbeddingCache(runtime, "fill", DIMENSION, max_bytes=int(max_bytes), quantization=FORMS[form])
    value = np.random.default_rng(1).standard_normal(DIMENSION).astype(np.float32)
    cache.put("warm-up", value)
    cache.clear()
    _say(runtime, "empty 0 0 0")
    for number in range(int(vectors)):
        cache.put(f"text {number}", value)
        cache.get(f"text {number // 2}")
    _say(runtime, f"full {cache.owned_bytes()} {len(cache.hot)} {len(cache.cold)}")


def _say(runtime: MemoryRuntime, line: str) -> None:
    runtime.ledger.trim()
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
