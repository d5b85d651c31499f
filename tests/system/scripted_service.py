"""A service on the runtime whose memory follows a script: a cache that is full and idle, and bytes nobody manages.

Usage: scripted_service.py RUN_FOLDER STATE_FOLDER CACHE_MIB SCRIPT. The script is JSON: pairs of second and MiB that
nobody manages, followed in straight lines. Says `ready` when the cache is full, and follows the script from the first
line on its standard input on.
"""

import json
import mmap
import os
import sys
import time
from pathlib import Path

from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

MIB = 1024 * 1024
VALUE_BYTES = 64 * 1024
COLLECTIONS = ("core-api", "archive", "pinned")
STEP_SECONDS = 0.02

Script = list[tuple[float, float]]


class Unmanaged:
    """Memory that the runtime does not know of, mapped and touched MiB by MiB."""

    def __init__(self) -> None:
        self._blocks: list[mmap.mmap] = []

    def hold(self, mebibytes: int) -> None:
        """So much from now on."""
        while len(self._blocks) > mebibytes:
            self._blocks.pop().close()
        while len(self._blocks) < mebibytes:
            block = mmap.mmap(-1, MIB)
            block.write(b"\1" * MIB)
            self._blocks.append(block)


def scripted(script: Script, second: float) -> int:
    """What the script asks for at that second, in MiB."""
    at, mebibytes = script[0]
    for next_at, next_mebibytes in script:
        if second < next_at:
            share = (second - at) / (next_at - at)
            return round(mebibytes + share * (next_mebibytes - mebibytes))
        at, mebibytes = next_at, next_mebibytes
    return round(mebibytes)


def main(run_folder: str, state_folder: str, cache_mebibytes: str, script_text: str) -> None:
    """Fill, say so, follow the script, end."""
    script: Script = [(float(second), float(mebibytes)) for second, mebibytes in json.loads(script_text)]
    runtime = MemoryRuntime(Path(state_folder), os.environ)
    cache: BoundedCache[str] = runtime.cache("semanticCache", ttl_seconds=3600.0)
    for number in range(int(cache_mebibytes) * MIB // VALUE_BYTES):
        with runtime.ledger.reserve("semanticCache", VALUE_BYTES):
            cache.put(f"key {number}", os.urandom(VALUE_BYTES), collection=COLLECTIONS[number % len(COLLECTIONS)])
    Path(run_folder).mkdir(parents=True, exist_ok=True)
    runtime.serve(Path(run_folder) / "engine.sock")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    unmanaged, started = Unmanaged(), time.monotonic()
    while (second := time.monotonic() - started) < script[-1][0]:
        unmanaged.hold(scripted(script, second))
        time.sleep(STEP_SECONDS)
    runtime.close()


if __name__ == "__main__":
    main(*sys.argv[1:5])
