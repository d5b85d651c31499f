"""How much memory the kernel gets back when a cache shrinks to a random tenth.

Peers: a dict of bytes on the heap with `malloc_trim`, and cachebox, whose values lie on the heap too. The survivors
are a random tenth, as after an eviction by recency: they keep most of the heap's pages alive.
"""

from __future__ import annotations

import ctypes
import random
import tempfile
import time
from pathlib import Path

import cachebox

from measuring import MIB, anonymous_bytes, in_fresh_process, table
from membudget_contract.control_api import FreeRequest, Means
from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

VALUE_BYTES = 2048
COUNT = 40_000
KEPT_SHARE = 0.1


def with_dict() -> tuple[float, float]:
    """A dict, `del`, `malloc_trim`."""
    keys = _keys()
    before = anonymous_bytes()
    values = {key: bytes([number % 251]) * VALUE_BYTES for number, key in enumerate(keys)}
    full = anonymous_bytes()
    started = time.perf_counter()
    for key in _leaving(keys):
        del values[key]
    ctypes.CDLL(None).malloc_trim(0)
    return _result(before, full, started)


def with_cachebox() -> tuple[float, float]:
    """cachebox.LRUCache, `malloc_trim`."""
    keys = _keys()
    before = anonymous_bytes()
    cache: cachebox.LRUCache[bytes, bytes] = cachebox.LRUCache(COUNT)
    for number, key in enumerate(keys):
        cache[key] = bytes([number % 251]) * VALUE_BYTES
    full = anonymous_bytes()
    started = time.perf_counter()
    for key in _leaving(keys):
        del cache[key]
    ctypes.CDLL(None).malloc_trim(0)
    return _result(before, full, started)


def with_membudget() -> tuple[float, float]:
    """A bounded cache whose random tenth was used last, asked to evict nine tenths."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": "1Gi"})
        cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=3600.0)
        cache.compression = False
        keys = _keys()
        before = anonymous_bytes()
        for number, key in enumerate(keys):
            cache.put(key, bytes([number % 251]) * VALUE_BYTES)
        for key in set(keys) - set(_leaving(keys)):
            cache.get("default", key)
        full = anonymous_bytes()
        started = time.perf_counter()
        runtime.free(FreeRequest(means=Means.EVICT, target_bytes=int((1 - KEPT_SHARE) * cache.owned_bytes())))
        return _result(before, full, started)


def _keys() -> list[bytes]:
    """They are the caller's in each case, and stay."""
    return [number.to_bytes(16, "little") for number in range(COUNT)]


def _leaving(keys: list[bytes]) -> list[bytes]:
    """Nine tenths at random, the same for all."""
    return random.Random(1).sample(keys, int((1 - KEPT_SHARE) * len(keys)))


def _result(before: int, full: int, started: float) -> tuple[float, float]:
    seconds = time.perf_counter() - started
    return 100 * (full - anonymous_bytes()) / (full - before), 1000 * seconds


if __name__ == "__main__":
    rows = [
        (name, *in_fresh_process(measure))
        for name, measure in (("dict", with_dict), ("cachebox", with_cachebox), ("membudget", with_membudget))
    ]
    size = COUNT * VALUE_BYTES / MIB
    table(
        f"Bytes back with the kernel after {size:.0f} MiB shrank to a random tenth (90 % is all that can be)",
        ("cache", "% given back", "ms"),
        rows,
    )
