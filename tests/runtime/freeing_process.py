"""Holds 256 MiB of values of 2 kB, put by several threads, and gives them back by one action when a line comes in.

Usage: freeing_process.py STATE_FOLDER ACTION. Prints `full`, then `freed BYTES SECONDS`: by how much its owned bytes
fell, and how long the action took; goes on when a line comes in. ACTION: Cleanup, Spill, Evict, Resize, Clear of a
cache, or Adopted, an Evict of a dict that is not ours.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from membudget_contract.control_api import FreeRequest, Means
from membudget_runtime.bounds import start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

MB = 1024 * 1024
HELD_BYTES = 256 * MB
VALUE_BYTES = 2048
THREADS = 4


class Freeing:
    """A runtime with a cache, or with a dict."""

    def __init__(self, state: Path) -> None:
        self.now = 0.0
        self.runtime = MemoryRuntime(state, {"MEMBUDGET_TOTAL": "16Gi"}, lambda: self.now)
        self.cache: BoundedCache[bytes] = self.runtime.cache("semanticCache", ttl_seconds=60.0)
        self.cache.compression = False
        self.dicts: dict[int, bytes] = {}

    def fill(self, action: str) -> None:
        """The dict where it is asked for, else the cache."""
        if action == "Adopted":
            self.dicts = {number: os.urandom(VALUE_BYTES) for number in range(HELD_BYTES // VALUE_BYTES)}
            self.runtime.adopt("dicts", lambda: len(self.dicts) * VALUE_BYTES, evict=self._drop)
            return
        threads = [threading.Thread(target=self._put, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def free(self, action: str) -> None:
        """Give it back."""
        target, runtime = HELD_BYTES * 3 // 4, self.runtime
        own: dict[str, Callable[[], object]] = {
            "Resize": lambda: runtime.apply(msgspec.structs.replace(start_budgets({}), components=self._ceilings())),
            "Clear": lambda: runtime.clear("semanticCache"),
            "Adopted": lambda: runtime.free(FreeRequest(means=Means.EVICT, target_bytes=target)),
        }
        self.now = 1000.0 if action == Means.CLEANUP else 1.0
        own.get(action, lambda: runtime.free(FreeRequest(means=Means(action), target_bytes=target)))()

    def owned(self) -> int:
        """Of all components."""
        return sum(part.owned_bytes for part in self.runtime.breakdown().components)

    def _put(self, thread: int) -> None:
        while self.cache.owned_bytes() < HELD_BYTES:
            for _ in range(100):
                self.cache.put(thread.to_bytes(1) + os.urandom(15), os.urandom(VALUE_BYTES))

    def _drop(self, byte_count: int) -> None:
        for number in range(byte_count // VALUE_BYTES):
            self.dicts.pop(number, None)

    def _ceilings(self) -> dict[str, int]:
        return start_budgets({}).components | {"semanticCache": HELD_BYTES // 4}


def main(state: str, action: str) -> None:
    """Fill, wait, free, wait."""
    process = Freeing(Path(state))
    with contextlib.closing(process.runtime):
        process.fill(action)
        _say("full")
        before, started = process.owned(), time.monotonic()
        process.free(action)
        _say(f"freed {before - process.owned()} {time.monotonic() - started:.3f}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
