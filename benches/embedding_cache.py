"""The embedding cache on vectors of 512 float32: hit rates at the same bytes, bytes of a vector, recall, a look-up.

Hit rates: 32 MiB, the first 250,000 requests of traces of traces.py, each key a text of its own; the named figure is
that of `zipf`. The peer is a dict of arrays with the same bound, least recently used first, at the bytes that such a
dict costs, which are measured here. The share of hot hits says how many found their vector uncompressed.

Bytes of a vector are anonymous memory of a fresh process: everything hot, and everything compressed. Recall is of the
ten nearest of functions of the standard library among 5,000 others, asked with vectors that were compressed.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from measuring import MIB, anonymous_bytes, in_fresh_process, table
from membudget_engine.caches.embedding_cache import EmbeddingCache
from membudget_engine.caches.vector_orders import Adaptive, LeastFrequent, LeastRecent, VectorOrder
from membudget_engine.embedder import HashingEmbedder
from membudget_engine.index.recall import recall
from membudget_engine.ingest.python_source import IngestReport, python_chunks, standard_library_root
from membudget_engine.reduction.quantization import Float16, Int8, Quantization
from membudget_runtime.memory_runtime import MemoryRuntime
from traces import TRACES

DIMENSION: Final = 512
PLAIN_BYTES: Final = 4 * DIMENSION
BUDGET: Final = 32 * MIB
TRACED: Final = ("zipf", "scan", "shift 100k")
REQUESTS: Final = 250_000
MEASURED: Final = 20_000
ASKED: Final = 200
AMONG: Final = 5_000

ORDERS: Final[dict[str, Callable[[], VectorOrder]]] = {
    "adaptive (default)": Adaptive,
    "least recently used": LeastRecent,
    "least frequently used": LeastFrequent,
}
FORMS: Final[dict[str, Quantization]] = {"float16 (default)": Float16(), "int8": Int8()}
ALL_HOT: Final = "float32, all hot"
DICT: Final = "dict of arrays"

_Vector = npt.NDArray[np.float32]


def hit_rates(trace: str, form: str, order: str) -> tuple[float, float, int]:
    """Of all requests, of the hits those that were hot, and how many vectors were held."""
    with tempfile.TemporaryDirectory() as folder:
        cache = _cache(Path(folder), FORMS[form], ORDERS[order], BUDGET)
        value = _vectors(1)[0]
        for key in TRACES[trace]()[:REQUESTS]:
            text = f"text {key}"
            if cache.get(text) is None:
                cache.put(text, value)
        counters = cache.counters
        assert counters.hit_ratio is not None
        return counters.hit_ratio, cache.hot.hits / counters.hits, len(cache)


def dict_hit_rate(trace: str, bytes_each: float) -> tuple[float, float, int]:
    """As `hit_rates`, of a dict of arrays that holds as many as BUDGET pays for."""
    most, held, hits = int(BUDGET / bytes_each), OrderedDict[int, None](), 0
    requests = TRACES[trace]()[:REQUESTS]
    for key in requests:
        if key in held:
            held.move_to_end(key)
            hits += 1
            continue
        held[key] = None
        if len(held) > most:
            held.popitem(last=False)
    return hits / len(requests), 1.0, most


def dict_bytes() -> float:
    """Anonymous memory of one array in a dict."""
    vectors, held = _vectors(64), OrderedDict[bytes, _Vector]()
    before = anonymous_bytes()
    for number in range(MEASURED):
        held[number.to_bytes(16, "little")] = vectors[number % 64].copy()
    return (anonymous_bytes() - before) / len(held)


def hot_bytes() -> float:
    """Anonymous memory of one vector where all are hot."""
    return _filled(Float16(), 1 << 32)[0] / MEASURED


def cold_bytes(form: str, hot_each: float) -> float:
    """Of one compressed vector: what is held but for the hot ones."""
    held_bytes, hot, cold = _filled(FORMS[form], BUDGET)
    return (held_bytes - hot * hot_each) / cold


def _filled(form: Quantization, max_bytes: int) -> tuple[int, int, int]:
    with tempfile.TemporaryDirectory() as folder:
        vectors, cache = _vectors(64), _cache(Path(folder), form, Adaptive, max_bytes)
        cache.put("warm-up", vectors[0])
        before = anonymous_bytes()
        for number in range(MEASURED):
            cache.put(f"text {number}", vectors[number % 64])
        ctypes.CDLL(None).malloc_trim(0)
        return anonymous_bytes() - before, len(cache.hot), len(cache.cold)


def microseconds(level: str) -> float:
    """Of a look-up that finds its vector in this level."""
    with tempfile.TemporaryDirectory() as folder:
        cache = _cache(Path(folder), Float16(), Adaptive, BUDGET)
        for number in range(MEASURED):
            cache.put(f"text {number}", _ONE)
        hot = len(cache.hot)
        texts = [f"text {MEASURED - 1 - (number if level == 'hot' else hot + number)}" for number in range(1000)]
        hits = cache.hot.hits, cache.cold.hits
        started = time.process_time()
        for text in texts:
            cache.get(text)
        taken = time.process_time() - started
        found = (cache.hot.hits - hits[0], cache.cold.hits - hits[1])
        assert found == ((1000, 0) if level == "hot" else (0, 1000)), found
        return 1e6 * taken / len(texts)


def recall_of(form: str) -> float:
    """At ten, of compressed queries against what the same queries find as they are."""
    chunks = list(python_chunks(standard_library_root(), IngestReport()))
    texts = [chunk.searchable_text() for chunk in chunks[:: max(1, len(chunks) // (AMONG + ASKED))]][: AMONG + ASKED]
    vectors = HashingEmbedder(DIMENSION).embed(texts)
    queries, others = vectors[:ASKED], vectors[ASKED:]
    coded = np.stack([FORMS[form].decoded(FORMS[form].encoded(query)) for query in queries])
    exact, found = (np.argsort(-(asked @ others.T), axis=1)[:, :10] for asked in (queries, coded))
    return recall(found, exact)


def _cache(folder: Path, form: Quantization, order: Callable[[], VectorOrder], max_bytes: int) -> EmbeddingCache:
    runtime = MemoryRuntime(folder, {"MEMBUDGET_TOTAL": "16Gi"})
    return EmbeddingCache(runtime, "bench", DIMENSION, max_bytes=max_bytes, quantization=form, order=order)


def _vectors(count: int) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(1).standard_normal((count, DIMENSION)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


_ONE: Final = _vectors(1)[0]


if __name__ == "__main__":
    hot = in_fresh_process(hot_bytes)
    each = {DICT: in_fresh_process(dict_bytes), ALL_HOT: hot}
    each |= {form: in_fresh_process(cold_bytes, form, hot) for form in FORMS}
    table(
        "A vector of 2,048 bytes",
        ("kept as", "bytes", "of the plain vector", "beside the value", "recall@10"),
        [
            (
                kind,
                f"{held:.0f}",
                held / PLAIN_BYTES,
                f"{held - (FORMS[kind].row_bytes(DIMENSION) if kind in FORMS else PLAIN_BYTES):.0f}",
                f"{recall_of(kind):.4f}" if kind in FORMS else "1",
            )
            for kind, held in each.items()
        ],
    )
    rows = [
        (trace, kept, order, *in_fresh_process(hit_rates, trace, kept, order))
        for trace in TRACED
        for kept, order in [*product(["float16 (default)"], ORDERS), ("int8", "adaptive (default)")]
    ]
    rows += [(trace, DICT, "least recently used", *dict_hit_rate(trace, each[DICT])) for trace in TRACED]
    columns = ("trace", "compressed as", "order", "hits", "of them hot", "vectors")
    table("Hit rates in 32 MiB", columns, sorted(rows))
    looked_up = [(level, in_fresh_process(microseconds, level)) for level in ("hot", "cold")]
    table("A look-up", ("level", "us of CPU"), looked_up)
