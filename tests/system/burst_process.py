"""Offers values to a cache as fast as eight threads can, with no sidecar, and prints what came of it as JSON.

Usage: burst_process.py STATE_FOLDER BYTES [--byte-blind]. The budget comes from MEMBUDGET_TOTAL. Values of 2 kB and
100 kB take turns until BYTES were offered, each reserved before it is allocated; `--byte-blind` keeps them in a dict
without asking.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from membudget_runtime.bounds import start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.errors import NoRoom
from membudget_runtime.memory_runtime import MemoryRuntime

THREADS = 8
SIZES = (2 * 1024, 100 * 1024)
BLOCK = os.urandom(1024 * 1024)
COMPONENT = "semanticCache"


class Offerer:
    """One thread's share of the values: offers them as fast as it can, and counts."""

    def __init__(self, keep: Callable[[bytes, int, int], bool], number: int) -> None:
        self.offered_bytes = 0
        self.refused = 0
        self._keep = keep
        self._number = number

    def run(self, share_bytes: int) -> None:
        """Keys are never used twice: every value is a new one."""
        turn = 0
        while self.offered_bytes < share_bytes:
            turn += 1
            size = SIZES[turn % 2]
            kept = self._keep(f"{self._number}-{turn}".encode(), size, turn * 4099 % (len(BLOCK) - size))
            self.refused += not kept
            self.offered_bytes += size


def main(state_folder: str, total_bytes: int, byte_blind: bool) -> None:
    """Run the threads, and report."""
    runtime = MemoryRuntime(Path(state_folder), os.environ)
    start = start_budgets(os.environ)
    # The ceiling is the whole budget: what must hold is the room.
    runtime.apply(msgspec.structs.replace(start, components={COMPONENT: start.total_bytes}, cache_compression=False))
    cache: BoundedCache[bytes] = runtime.cache(COMPONENT, ttl_seconds=3600.0)
    blind: dict[bytes, bytes] = {}

    def keep_reserved(key: bytes, size: int, offset: int) -> bool:
        try:
            with runtime.ledger.reserve(COMPONENT, size):
                return cache.put(key, BLOCK[offset : offset + size])
        except NoRoom:
            return False

    def keep_blindly(key: bytes, size: int, offset: int) -> bool:
        blind[key] = BLOCK[offset : offset + size]
        return True

    offerers = [Offerer(keep_blindly if byte_blind else keep_reserved, number) for number in range(THREADS)]
    threads = [threading.Thread(target=offerer.run, args=(total_bytes // THREADS,)) for offerer in offerers]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - started
    offered = sum(offerer.offered_bytes for offerer in offerers)
    outcome = {
        "offered": offered,
        "rate": offered / elapsed,
        "refused": sum(offerer.refused for offerer in offerers),
        "owned": cache.owned_bytes(),
        "entries": len(cache),
    }
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), byte_blind="--byte-blind" in sys.argv[3:])
