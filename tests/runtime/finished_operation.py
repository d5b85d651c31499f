"""A service whose operation fills a grant with heap memory, ends, and releases it. Talks over its standard streams.

Prints a line when it has started, when the grant is filled, and when it is released; waits for a line before each step.
The operation leaves a small value behind at the end of the heap, as real ones do: the C library gives nothing back
by itself then.
"""

import sys
import threading
from contextlib import closing
from pathlib import Path

from membudget_contract.control_api import AllocationRequest
from membudget_runtime.memory_runtime import MemoryRuntime

MB = 1024 * 1024
GRANTED = 40 * MB
VALUE_BYTES = 2000
THREADS = 4


def main(state: Path) -> None:
    """One operation in four threads."""
    left_behind: list[bytes] = []
    with closing(MemoryRuntime(state, {"MEMBUDGET_TOTAL": "1Gi"})) as runtime:
        step("started")
        runtime.allocate(AllocationRequest(id="embed", component="semanticCache", request_bytes=GRANTED))
        parts: list[list[bytes]] = [[] for _ in range(THREADS)]
        threads = [threading.Thread(target=fill, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left_behind.append(bytes(VALUE_BYTES))
        step("filled")
        parts.clear()
        runtime.release_allocation("embed")
        step("released")


def fill(part: list[bytes]) -> None:
    """Its share of the grant."""
    part.extend(bytes([number % 251]) * VALUE_BYTES for number in range(GRANTED // THREADS // (VALUE_BYTES + 64)))


def step(name: str) -> None:
    """Say it, and wait."""
    sys.stdout.write(name + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
