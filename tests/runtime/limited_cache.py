"""A cache in a process that may map no more: says how puts, look-ups, evictions and spills came out.

Argument: a folder for spilled values.
"""

import json
import resource
import sys
from pathlib import Path

from membudget_contract.policy import Priority
from membudget_runtime.cache import BoundedCache
from membudget_runtime.process_guards import GuardKind, counted_bytes
from membudget_runtime.spill import SpillStore
from runtime.fakes import MB, RANKING, HandClock, ledger_of
from runtime.recount import wrong_in

LENGTHS = (2048, 3000, 50_000, 200_000)
MOST_TINY = 200_000
"""More than the heap may take after the eviction, whatever was free in it."""


def main(folder: Path) -> None:
    """Some values before the limit, many after it."""
    ledger, _ = ledger_of(ceilings={"cache": 64 * MB})
    cache: BoundedCache[int] = BoundedCache(
        "cache", ledger, ttl_seconds=1e9, clock=HandClock(), spill=SpillStore(folder, 64 * MB), compression=False
    )
    for number in range(4000):
        cache.put(number, number.to_bytes(4) * (LENGTHS[number % 3] // 4), "low" if number % 2 else "high")
    cache.spill(4 * MB, Priority.LOW, RANKING)
    ledger.trim()
    counted = counted_bytes(GuardKind.DATA)
    assert counted is not None
    resource.setrlimit(resource.RLIMIT_DATA, (counted + 256 * 1024, -1))
    refused = sum(not cache.put(10_000 + number, bytes(LENGTHS[number % 4]), "high") for number in range(400))
    wrong = sum(
        cache.get("low" if number % 2 else "high", number)
        not in {None, number.to_bytes(4) * (LENGTHS[number % 3] // 4)}
        for number in range(4000)
    )
    evicted = ledger.evict(8 * MB, Priority.HIGH)
    again = cache.put(20_000, bytes(2048), "high")
    tiny = next((number for number in range(MOST_TINY) if not cache.put(30_000 + number, b"tiny", "low")), MOST_TINY)
    resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))
    books = wrong_in(cache)
    cache.clear()
    told = {
        "refused": refused > 0,
        "wrong": wrong,
        "evicted": evicted.freed_bytes > MB,
        "again": again,
        "tiny": 0 < tiny < MOST_TINY,
        "books": books,
        "left": cache.owned_bytes() + cache.spilled_bytes(),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
