"""A service that embeds the runtime: one cache with entries, and the control socket. Nothing of it is a fake.

Usage: runtime_process.py RUN_FOLDER. Prints `listening`, and serves until its standard input ends.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Self

from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

ENTRIES = 2000
ENTRY_BYTES = 4096


class RuntimeProcess:
    """The test's end of it."""

    def __init__(self, run_folder: Path) -> None:
        argv = [sys.executable, __file__, str(run_folder)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    @property
    def pid(self) -> int:
        """Of the service."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def main(run_folder: str) -> None:
    """Serve until the standard input ends."""
    runtime = MemoryRuntime(Path(run_folder) / "engine", {})
    cache: BoundedCache[int] = runtime.cache("semanticCache", ttl_seconds=3600.0)
    chance = random.Random(7)
    for number in range(ENTRIES):
        cache.put(number, chance.randbytes(ENTRY_BYTES))  # nothing that compresses
    runtime.serve(Path(run_folder) / "engine.sock")
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    sys.stdin.read()
    runtime.close()


if __name__ == "__main__":
    main(sys.argv[1])
