"""A service on the runtime, and nothing else: holds what it is told to hold, one command per line of its input.

Usage: service_process.py STATE_FOLDER SOCKET. Each command is answered by one line with a number:

    fill COLLECTION BYTES    cached values of 64 kB, until so many bytes are held or the next is refused; bytes held
    hold BYTES               bytes outside of every component, 0 lets go of them; bytes held
    scatter BYTES            as many in small values, of which one in 16 stays, scattered over the heap; bytes kept
"""

import os
import sys
from pathlib import Path

from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

COMPONENT = "semanticCache"
VALUE_BYTES = 64 * 1024
SCATTERED_BYTES = 2 * 1024
"""Above what Python's own allocator takes: these lie in the heap of malloc."""
ONE_IN = 16


class Service:
    """What the commands act on."""

    def __init__(self, runtime: MemoryRuntime) -> None:
        self._cache: BoundedCache[bytes] = runtime.cache(COMPONENT, ttl_seconds=3600.0)
        self._held = bytearray()
        self._scattered: list[bytearray] = []
        self._number = 0

    def fill(self, collection: str, byte_count: str) -> int:
        """Values that do not compress, each under a key of its own."""
        while self._cache.owned_bytes() < int(byte_count):
            self._number += 1
            if not self._cache.put(str(self._number).encode(), os.urandom(VALUE_BYTES), collection):
                break
        return self._cache.owned_bytes()

    def hold(self, byte_count: str) -> int:
        """Every page is written to, so every page counts."""
        self._held = bytearray()
        self._held = bytearray(b"x") * int(byte_count)
        return len(self._held)

    def scatter(self, byte_count: str) -> int:
        """What is freed lies between what stays: malloc keeps it until it is trimmed."""
        values = [bytearray(b"x") * SCATTERED_BYTES for _ in range(int(byte_count) // SCATTERED_BYTES)]
        self._scattered = values[::ONE_IN]
        return len(self._scattered) * SCATTERED_BYTES


def main(state_folder: str, socket: str) -> None:
    """Until the input ends."""
    runtime = MemoryRuntime(Path(state_folder), os.environ)
    service = Service(runtime)
    runtime.serve(Path(socket))
    commands = {"fill": service.fill, "hold": service.hold, "scatter": service.scatter}
    for line in sys.stdin:
        name, *arguments = line.split()
        sys.stdout.write(f"{commands[name](*arguments)}\n")
        sys.stdout.flush()
    runtime.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
