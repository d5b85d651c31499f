"""Cache operations beside peers: an OrderedDict under a lock, and cachebox (Rust).

The mix is a skewed trace over 20,000 keys of 2 kB with room for half of them: a look-up, and a put where it missed.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import cachebox

from measuring import in_fresh_process, table
from membudget_runtime.cache import ENTRY_BYTES, BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

KEYS = 20_000
REQUESTS = 200_000
VALUE = b"v" * 2048
ROOM = KEYS // 2


def _trace() -> list[bytes]:
    weights = list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    numbers = random.Random(7).choices(range(KEYS), cum_weights=weights, k=REQUESTS)
    return [number.to_bytes(16, "little") for number in numbers]


def _timed(get: Callable[[bytes], bytes | None], put: Callable[[bytes, bytes], object]) -> tuple[float, float]:
    trace = _trace()
    hits = 0
    started = time.process_time()
    for key in trace:
        if get(key) is None:
            put(key, VALUE)
        else:
            hits += 1
    return REQUESTS / (time.process_time() - started) / 1000, 100 * hits / REQUESTS


def with_ordered_dict() -> tuple[float, float]:
    """The least that a thread-safe LRU in Python costs; counts entries, not bytes."""
    entries: OrderedDict[bytes, bytes] = OrderedDict()
    lock = threading.Lock()

    def get(key: bytes) -> bytes | None:
        with lock:
            value = entries.get(key)
            if value is not None:
                entries.move_to_end(key)
            return value

    def put(key: bytes, value: bytes) -> None:
        with lock:
            entries[key] = value
            if len(entries) > ROOM:
                entries.popitem(last=False)

    return _timed(get, put)


def with_cachebox() -> tuple[float, float]:
    """Native code; counts entries here."""
    cache: cachebox.LRUCache[bytes, bytes] = cachebox.LRUCache(ROOM)
    return _timed(cache.get, cache.insert)


def with_membudget() -> tuple[float, float]:
    """Exact bytes, room, priorities."""
    with tempfile.TemporaryDirectory() as folder:
        total = ROOM * (len(VALUE) + ENTRY_BYTES) * 150 // 40
        runtime = MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": str(total)})
        cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=3600.0)
        cache.compression = False
        return _timed(lambda key: cache.get("default", key), cache.put)


if __name__ == "__main__":
    rows = [
        (name, *in_fresh_process(measure))
        for name, measure in (
            ("OrderedDict + Lock", with_ordered_dict),
            ("cachebox", with_cachebox),
            ("membudget", with_membudget),
        )
    ]
    table("Cache operations on a skewed trace, one thread", ("cache", "1000 requests/s of CPU", "% hits"), rows)
