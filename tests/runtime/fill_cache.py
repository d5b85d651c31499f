"""Fills a cache with entries of one size, then waits: another process reads this one's anonymous memory.

Usage: fill_cache.py STATE_FOLDER ENTRY_BYTES TOTAL_BYTES HOW. Prints `empty` before, `full REPORTED_BYTES`
after; goes on when a line comes in. HOW: `once` puts every key once; `churn` goes on in a full cache, with old keys and
new ones at random, four times over; `hot` rewrites twenty keys all the time, and now and then puts one that stays;
`long-keys` puts every value under a key as long as itself; `getsizeof` puts as `once` and reports what `sys.getsizeof`
tells of all keys and values.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from membudget_runtime.cache import BoundedCache
from membudget_runtime.kept_entries import ENTRY_BYTES
from membudget_runtime.memory_runtime import MemoryRuntime

CEILING_SHARE = 40 / 150
HOT_KEYS = 20
STAYS_EVERY = 2000


def keys(how: str, fitting: int, hot: int) -> Iterator[int]:
    """Which keys are put, one after the other."""
    if how == "hot":
        yield from (number if number % STAYS_EVERY == 0 else number % HOT_KEYS for number in range(hot))
        return
    yield from range(fitting)
    if how == "churn":
        chance = random.Random(5)
        yield from (chance.randrange(2 * fitting) for _ in range(4 * fitting))


def main(state_folder: str, entry_bytes: str, total_bytes: str, how: str) -> None:
    """Fill, and report what the cache says it owns."""
    ceiling = int(total_bytes) if how == "churn" else 1 << 30
    runtime = MemoryRuntime(Path(state_folder), {"MEMBUDGET_TOTAL": str(int(ceiling / CEILING_SHARE))})
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=3600.0)
    cache.compression = False
    value = b"v" * int(entry_bytes)
    runtime.ledger.trim()
    _say("empty")
    length = len(value) if how == "long-keys" else 16
    naive = 0
    for number in keys(how, int(total_bytes) // (len(value) + length + ENTRY_BYTES), int(total_bytes) // len(value)):
        key = number.to_bytes(length, "little")
        cache.put(key, value)
        naive += sys.getsizeof(key) + sys.getsizeof(value)
    runtime.ledger.trim()
    _say(f"full {naive if how == 'getsizeof' else cache.owned_bytes()}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
