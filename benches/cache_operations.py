"""Cache operations beside peers: an OrderedDict under a lock, cachetools under a lock, and cachebox (Rust).

The mix is a skewed trace over 20,000 keys of 2 kB with room for half of them: a look-up, and a put where it missed.
With one thread, and with eight that share the requests. Beside it look-ups alone, of a hundred keys that are all there.
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
import cachetools
import msgspec

from measuring import in_fresh_process, table
from membudget_runtime.bounds import start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.kept_entries import ENTRY_BYTES
from membudget_runtime.memory_runtime import MemoryRuntime

KEYS = 20_000
HOT_KEYS = 100
REQUESTS = 200_000
VALUE = b"v" * 2048
ROOM = KEYS // 2


def _trace() -> list[bytes]:
    weights = list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    numbers = random.Random(7).choices(range(KEYS), cum_weights=weights, k=REQUESTS)
    return [number.to_bytes(16, "little") for number in numbers]


def _timed(
    get: Callable[[bytes], bytes | None], put: Callable[[bytes, bytes], object], threads: int
) -> tuple[float, float, float]:
    trace = _trace()
    misses = [0] * threads

    def replay(number: int) -> None:
        missed = 0
        for key in trace[number::threads]:
            if get(key) is None:
                put(key, VALUE)
                missed += 1
        misses[number] = missed

    hot = [number.to_bytes(16, "big") for number in range(HOT_KEYS)]
    for key in hot:
        put(key, VALUE)
    started = time.process_time()
    for _ in range(REQUESTS // HOT_KEYS):
        for key in hot:
            get(key)
    found = REQUESTS / (time.process_time() - started) / 1000
    workers = [threading.Thread(target=replay, args=(number,)) for number in range(threads)]
    started = time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.process_time() - started
    return REQUESTS / seconds / 1000, 100 * (1 - sum(misses) / REQUESTS), found


def with_ordered_dict(threads: int) -> tuple[float, float, float]:
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

    return _timed(get, put, threads)


def with_cachebox(threads: int) -> tuple[float, float, float]:
    """Native code; counts entries here."""
    cache: cachebox.LRUCache[bytes, bytes] = cachebox.LRUCache(ROOM)
    return _timed(cache.get, cache.insert, threads)


def with_cachetools(threads: int) -> tuple[float, float, float]:
    """Counts entries here; without the lock it raises under threads."""
    cache: cachetools.LRUCache[bytes, bytes] = cachetools.LRUCache(ROOM)
    lock = threading.Lock()

    def get(key: bytes) -> bytes | None:
        with lock:
            return cache.get(key)

    def put(key: bytes, value: bytes) -> None:
        with lock:
            cache[key] = value

    return _timed(get, put, threads)


def with_membudget(threads: int) -> tuple[float, float, float]:
    """Exact bytes, room, priorities."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": "1Gi"})
        # The trace is memory of this process too: the ceiling shall bound the cache, not what is left beside it.
        ceilings = {"semanticCache": ROOM * (len(VALUE) + ENTRY_BYTES)}
        runtime.apply(msgspec.structs.replace(start_budgets({"MEMBUDGET_TOTAL": "1Gi"}), components=ceilings))
        cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=3600.0)
        cache.compression = False

        def get(key: bytes) -> bytes | None:
            return cache.get("default", key)

        return _timed(get, cache.put, threads)


if __name__ == "__main__":
    rows: list[tuple[str, float, float, float, float, float]] = []
    for name, measure in (
        ("OrderedDict + Lock", with_ordered_dict),
        ("cachetools + Lock", with_cachetools),
        ("cachebox", with_cachebox),
        ("membudget", with_membudget),
    ):
        alone, hits, found = in_fresh_process(measure, 1)
        shared, _, _ = in_fresh_process(measure, 8)
        reference = rows[0][1] if rows else alone
        rows.append((name, alone, shared, alone / reference, hits, found))
    columns = (
        "cache",
        "1000 requests/s of CPU, 1 thread",
        "8 threads",
        "ratio to OrderedDict",
        "% hits",
        "look-ups alone, 1000/s",
    )
    table("Cache operations on a skewed trace", columns, rows)
