"""Fills a counted cache, then waits: another process reads this one's anonymous memory.

Usage: fill_counted.py STATE_FOLDER ENTRY_BYTES ENTRIES HOW. Says `empty 0`, then `full REPORTED`; goes on from each
when a line comes in. HOW: `once` puts every key once; `churn` goes on with old and new keys at random, four times over;
`packed` does that in a room that packs what is unused, with values that it can make smaller, and has it do so.
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from membudget_engine.caches.counted_cache import CountedCache, Counts
from membudget_engine.caches.packed_together import Packs
from membudget_runtime.memory_runtime import MemoryRuntime

KEY_BYTES = 16


def keys(how: str, entries: int) -> Iterator[int]:
    """Which keys are put, one after the other."""
    yield from range(entries)
    if how != "once":
        chance = random.Random(5)
        yield from (chance.randrange(2 * entries) for _ in range(4 * entries))


def main(state_folder: str, entry_bytes: str, entries: str, how: str) -> None:
    """Fill, and say what the room reports."""
    runtime = MemoryRuntime(Path(state_folder), {"MEMBUDGET_TOTAL": "4Gi"})
    cache = CountedCache(
        "room",
        runtime,
        counts=Counts(int(entries)),
        max_bytes=1 << 30,
        ttl_seconds=3600.0,
        packs=Packs.UNUSED if how == "packed" else Packs.AT_ONCE,
    )
    cache.put("c", b"warm-up", b"v")
    cache.drop("c")
    _say(runtime, "empty", 0)
    for key in keys(how, int(entries)):
        # Random bytes cannot be made smaller, their hexadecimal digits by nearly half.
        value = os.urandom(int(entry_bytes) // 2).hex().encode() if how == "packed" else os.urandom(int(entry_bytes))
        cache.put("c", key.to_bytes(KEY_BYTES, "little"), value)
    if how == "packed":
        for _ in range(2):
            cache.pack_unused()
        assert len(cache) == cache.counters.compressions
    _say(runtime, "full", cache.owned_bytes())


def _say(runtime: MemoryRuntime, word: str, reported: int) -> None:
    runtime.ledger.trim()
    sys.stdout.write(f"{word} {reported}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
