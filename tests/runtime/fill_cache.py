"""Fills a cache with entries of one size, then waits: another process reads this one's anonymous memory.

Usage: fill_cache.py STATE_FOLDER ENTRY_BYTES TOTAL_BYTES. Prints `empty` before, `full REPORTED_BYTES ENTRIES` after;
goes on when a line comes in.
"""

import sys
from pathlib import Path

from membudget_runtime.cache import ENTRY_BYTES, BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime


def main(state_folder: str, entry_bytes: str, total_bytes: str) -> None:
    """Fill, and report what the cache says it owns."""
    runtime = MemoryRuntime(Path(state_folder), {"MEMBUDGET_TOTAL": "1Gi"})
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=3600.0)
    cache.compression = False
    value = b"v" * int(entry_bytes)
    runtime.ledger.trim()
    _say("empty")
    for number in range(int(total_bytes) // (len(value) + ENTRY_BYTES)):
        cache.put(number.to_bytes(16, "little"), value)
    runtime.ledger.trim()
    _say(f"full {cache.owned_bytes()} {len(cache)}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
