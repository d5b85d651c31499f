"""Hit rates at the same real bytes: membudget's three orders beside cachetools, cachebox, theine and Belady's optimum.

How many entries each peer may hold in BUDGET is measured: the anonymous memory of a fresh process that fills it with
2 kB values under keys of 16 bytes. membudget gets the budget as its ceiling. Belady's optimum, which knows the future
and may pass a value by, holds as many entries as membudget held in the end. The traces are described in traces.py.
"""

from __future__ import annotations

import ctypes
import heapq
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import cachebox
import cachetools
from theine import Cache as TheineCache

from measuring import MIB, anonymous_bytes, in_fresh_process, table
from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.replacement import AdaptiveFifo, LeastFrequentlyUsed, LeastRecentlyUsed, Replacement
from traces import TRACES

BUDGET: Final = 24 * MIB
VALUE_BYTES: Final = 2048
MEASURED_ENTRIES: Final = 10_000


class Driven(NamedTuple):
    """A cache under test: look up, keep, and how many are kept."""

    get: Callable[[bytes], object]
    put: Callable[[bytes, bytes], object]
    held: Callable[[], int]


def _cachetools(kind: type[cachetools.Cache[bytes, bytes]], entries: int) -> Driven:
    cache = kind(maxsize=entries)
    return Driven(cache.get, cache.__setitem__, lambda: len(cache))


def _cachebox(kind: type[cachebox.LRUCache[bytes, bytes] | cachebox.LFUCache[bytes, bytes]], entries: int) -> Driven:
    cache = kind(entries)
    return Driven(cache.get, cache.insert, lambda: len(cache))


def _theine(entries: int) -> Driven:
    cache: TheineCache[bytes, bytes] = TheineCache(entries)

    def get(key: bytes) -> bytes | None:
        return cache.get(key)[0]

    return Driven(get, cache.set, lambda: len(cache))


PEERS: Final[dict[str, Callable[[int], Driven]]] = {
    "cachetools LRU": lambda entries: _cachetools(cachetools.LRUCache, entries),
    "cachetools LFU": lambda entries: _cachetools(cachetools.LFUCache, entries),
    "cachebox LRU": lambda entries: _cachebox(cachebox.LRUCache, entries),
    "cachebox LFU": lambda entries: _cachebox(cachebox.LFUCache, entries),
    "theine W-TinyLFU": _theine,
}
OURS: Final[dict[str, type[Replacement[bytes]]]] = {
    "membudget AdaptiveFifo (default)": AdaptiveFifo,
    "membudget LeastRecentlyUsed": LeastRecentlyUsed,
    "membudget LeastFrequentlyUsed": LeastFrequentlyUsed,
}


def entries_within_budget(peer: str) -> int:
    """How many entries of this peer cost BUDGET bytes of anonymous memory."""
    before = anonymous_bytes()
    cache = PEERS[peer](MEASURED_ENTRIES)
    for number in range(MEASURED_ENTRIES):
        cache.put(_key(number), _value(number))
    ctypes.CDLL(None).malloc_trim(0)
    return BUDGET * MEASURED_ENTRIES // (anonymous_bytes() - before)


def peer_hits(peer: str, entries: int, trace: str) -> tuple[float, int]:
    """Per cent of hits, and entries held in the end."""
    return _replayed(PEERS[peer](entries), trace)


def our_hits(order: str, trace: str) -> tuple[float, int]:
    """The same of a cache under a ceiling of BUDGET bytes."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = MemoryRuntime(Path(folder), {"MEMBUDGET_TOTAL": str(BUDGET * 150 // 40)})
        cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=1e9, policy=OURS[order])
        cache.compression = False
        assert runtime.ledger.ceiling(cache.name) == BUDGET

        def get(key: bytes) -> bytes | None:
            return cache.get("default", key)

        return _replayed(Driven(get, cache.put, lambda: len(cache)), trace)


def optimal_hits(entries: int, trace: str) -> float:
    """Per cent of hits of Belady's optimum: what is asked for last goes first, the new value too."""
    requests = TRACES[trace]()
    following, seen = [0] * len(requests), dict[int, int]()
    for position in range(len(requests) - 1, -1, -1):
        following[position] = seen.get(requests[position], sys.maxsize)
        seen[requests[position]] = position
    held, latest, hits = dict[int, int](), list[tuple[int, int]](), 0
    for position, key in enumerate(requests):
        hits += key in held
        if key not in held and len(held) >= entries:
            while held.get(latest[0][1]) != -latest[0][0]:
                heapq.heappop(latest)
            if -latest[0][0] <= following[position]:
                continue
            del held[heapq.heappop(latest)[1]]
        held[key] = following[position]
        heapq.heappush(latest, (-following[position], key))
    return 100 * hits / len(requests)


def _replayed(cache: Driven, trace: str) -> tuple[float, int]:
    requests, hits = TRACES[trace](), 0
    for number in requests:
        key = _key(number)
        if cache.get(key) is None:
            cache.put(key, _value(number))
        else:
            hits += 1
    return 100 * hits / len(requests), cache.held()


def _key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def _value(number: int) -> bytes:
    return bytes([number % 251]) * VALUE_BYTES


def _rows() -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    ours = {order: [in_fresh_process(our_hits, order, trace) for trace in TRACES] for order in OURS}
    held = ours["membudget AdaptiveFifo (default)"]
    best = [in_fresh_process(optimal_hits, kept, trace) for (_, kept), trace in zip(held, TRACES, strict=True)]
    rows.append(("Belady's optimum", held[0][1], *best))
    rows.extend((order, figures[0][1], *(hits for hits, _ in figures)) for order, figures in ours.items())
    for peer in PEERS:
        entries = in_fresh_process(entries_within_budget, peer)
        rows.append((peer, entries, *(in_fresh_process(peer_hits, peer, entries, trace)[0] for trace in TRACES)))
    lru = [hits for hits, _ in ours["membudget LeastRecentlyUsed"]]
    way = [100 * (kept[0] - low) / (high - low) for kept, low, high in zip(held, lru, best, strict=True)]
    rows.append(("default: % of the way from LRU to the optimum", "", *way))
    return rows


if __name__ == "__main__":
    title = f"Hit rates in per cent, {BUDGET // MIB} MiB of anonymous memory, values of {VALUE_BYTES} bytes"
    table(title, ("cache", "entries", *TRACES), _rows())
