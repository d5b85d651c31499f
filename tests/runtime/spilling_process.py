"""Spills twenty values, again if it failed, and reads them back: run under strace, which lets calls fail.

Usage: spilling_process.py FOLDER. Prints what the first and the second spill said, and how many values came back.
"""

import os
import sys
from pathlib import Path

from membudget_contract.policy import Priority
from membudget_runtime.cache import BoundedCache
from membudget_runtime.spill import SpillStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from runtime.fakes import MB, RANKING, HandClock, ledger_of


def main(folder: str) -> None:
    """Values of 20 kB."""
    ledger, _ = ledger_of(ceilings={"cache": 64 * MB})
    store = SpillStore(Path(folder), 64 * MB)
    cache: BoundedCache[int] = BoundedCache("cache", ledger, ttl_seconds=1e9, clock=HandClock(), spill=store)
    values = {number: os.urandom(20_000) for number in range(20)}
    for key, value in values.items():
        cache.put(key, value, "low")
    for word in ("spilled", "again"):
        problem = cache.spill(MB, Priority.LOW, RANKING).problem
        sys.stdout.write(f"{word} {problem and problem.rpartition(': ')[2]}\n")
    found = sum(cache.get("low", key) == value for key, value in values.items())
    sys.stdout.write(f"found {found} damaged {cache.counters.damaged}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
