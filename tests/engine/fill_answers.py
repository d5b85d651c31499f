"""Fills a semantic cache, then evicts most of it: another process reads this one's anonymous memory.

Usage: fill_answers.py STATE_FOLDER ANSWERS ANSWER_BYTES. Says `empty REPORTED`, `full REPORTED` and, after an
eviction of nine tenths at random recency, `evicted REPORTED`; goes on from each when a line comes in.
"""

import os
import random
import sys
from pathlib import Path

import numpy as np

from membudget_contract.control_api import FreeRequest, Means
from membudget_engine.caches.semantic_cache import SemanticCache
from membudget_runtime.memory_runtime import MemoryRuntime

DIMENSION = 384
TAG = b"8 bytes."
COLLECTION = "stdlib"
HITS = 5


def main(state_folder: str, answers: str, answer_bytes: str) -> None:
    """Fill, use in a random order, evict, and say after each what the component reports."""
    runtime = MemoryRuntime(Path(state_folder), {"MEMBUDGET_TOTAL": "1Gi"})
    cache = SemanticCache(runtime, DIMENSION)
    vectors = np.random.default_rng(1)
    queries = [f"question {number}" for number in range(int(answers))]
    _keep(cache, "warm-up", int(answer_bytes), vectors)
    cache.answers.clear()
    _say(runtime, "empty")
    for query in queries:
        _keep(cache, query, int(answer_bytes), vectors)
    _say(runtime, "full")
    for query in random.Random(1).sample(queries, len(queries)):
        assert cache.same_words(COLLECTION, TAG, HITS, query) is not None
    runtime.free(FreeRequest(means=Means.EVICT, target_bytes=cache.answers.owned_bytes() * 9 // 10))
    _say(runtime, "evicted")


def _keep(cache: SemanticCache, query: str, answer_bytes: int, vectors: np.random.Generator) -> None:
    drawn = vectors.standard_normal(DIMENSION, dtype=np.float32)
    vector = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    # Random, so that compression cannot make it smaller.
    cache.keep(COLLECTION, TAG, HITS, query, vector, os.urandom(answer_bytes))


def _say(runtime: MemoryRuntime, word: str) -> None:
    runtime.ledger.trim()
    sys.stdout.write(f"{word} {sum(part.owned_bytes for part in runtime.report().components)}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
