"""A process on the runtime whose caches are full, and memory that nobody manages growing beside them.

Usage: growing_process.py FOLDER WHERE BYTES BYTES_PER_SECOND. The control socket is FOLDER/engine.sock. Each line on
the standard input is one step, answered with a line of JSON: `fill BYTES` fills the semantic cache, `grow` starts the
growth and answers when it has ended. WHERE is `inside` for a thread of this process, which the runtime's own reading
sees, or `beside` for a child in the same cgroup, which only the cgroup's figures show.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

BLOCK_BYTES = 256 * 1024
VALUE_BYTES = 64 * 1024
COMPONENT = "semanticCache"


def grow(total: int, rate: int) -> list[mmap.mmap]:
    """Touch every page of `total` new bytes, evenly at `rate` bytes a second; the blocks stay as long as they do."""
    blocks: list[mmap.mmap] = []
    content = b"\1" * BLOCK_BYTES
    started = time.monotonic()
    while len(blocks) * BLOCK_BYTES < total:
        ahead = len(blocks) * BLOCK_BYTES / rate - (time.monotonic() - started)
        if ahead > 0:
            time.sleep(ahead)
        block = mmap.mmap(-1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(content)
        blocks.append(block)
    return blocks


def grow_inside(total: int, rate: int) -> dict[str, float]:
    """In a thread of its own, so that this one waits as an engine's main thread does."""
    started = time.monotonic()
    thread = threading.Thread(target=lambda: _kept.append(grow(total, rate)))
    thread.start()
    thread.join()
    return {"seconds": time.monotonic() - started}


def grow_beside(total: int, rate: int) -> dict[str, float]:
    """In a child that holds what it has until its standard input ends with this process."""
    argv = [sys.executable, __file__, "child", str(total), str(rate)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    answer = child.stdout.readline()
    _kept.append(child)
    return json.loads(answer)


_kept: list[object] = []
"""Nothing that grew is given back before the process ends."""


def main(folder: Path, where: str, total: int, rate: int) -> None:
    """Serve the control socket, and take the steps."""
    from membudget_runtime.cache import BoundedCache
    from membudget_runtime.memory_runtime import MemoryRuntime

    runtime = MemoryRuntime(folder / "engine-state", os.environ)
    cache: BoundedCache[bytes] = runtime.cache(COMPONENT, ttl_seconds=3600.0)
    runtime.serve(folder / "engine.sock")
    _answer({"pid": os.getpid()})
    for line in sys.stdin:
        step, *arguments = line.split()
        if step == "fill":
            for number in range(int(arguments[0]) // VALUE_BYTES):
                cache.put(number.to_bytes(4), os.urandom(VALUE_BYTES))
            _answer({"owned": cache.owned_bytes()})
        else:
            grown = grow_inside(total, rate) if where == "inside" else grow_beside(total, rate)
            _answer({**grown, "owned": cache.owned_bytes()})


def child(total: int, rate: int) -> None:
    """Grow, say so, and stay until the parent is gone."""
    started = time.monotonic()
    _kept.append(grow(total, rate))
    _answer({"seconds": time.monotonic() - started})
    sys.stdin.read()


def _answer(message: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
