"""The slot arena beside peers, on vectors of 512 float32 under keys of 16 bytes: overhead, shrinking, spilling.

Overhead is anonymous memory beyond the vectors. Shrinking drops all but a random tenth, then trims. Spilling writes
everything to disk and syncs it; its extra memory is by how much the kernel's own peak of the resident set rose. The raw
write, of one buffer of the same size, is all that the disk can do in the same minute.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cachebox
import numpy as np
import numpy.typing as npt

from measuring import MIB, anonymous_bytes, in_fresh_process, table
from membudget_runtime.slots import SlotArena
from membudget_runtime.spill import SpillStore

VECTOR_BYTES = 2048
COUNT = 256_000
"""500 MiB."""


class Held(NamedTuple):
    """A peer: keep a vector, keep only these keys, write everything to a folder."""

    put: Callable[[bytes, bytes], object]
    retain: Callable[[list[bytes]], object]
    spill: Callable[[Path], object]


def _pickled(values: object, folder: Path) -> None:
    with (folder / "pickle").open("wb") as file:
        pickle.dump(values, file, protocol=5)
        file.flush()
        os.fsync(file.fileno())


def with_bytes() -> Held:
    """A dict of bytes."""
    held: dict[bytes, bytes] = {}

    def retain(keys: list[bytes]) -> None:
        for key in held.keys() - set(keys):
            del held[key]

    return Held(held.__setitem__, retain, partial(_pickled, held))


def with_arrays() -> Held:
    """A dict of arrays, as caches of embeddings are."""
    held: dict[bytes, npt.NDArray[np.float32]] = {}

    def put(key: bytes, value: bytes) -> None:
        held[key] = np.frombuffer(value, dtype=np.float32).copy()

    def retain(keys: list[bytes]) -> None:
        for key in held.keys() - set(keys):
            del held[key]

    return Held(put, retain, partial(_pickled, held))


def with_cachebox() -> Held:
    """Native code."""
    held: cachebox.LRUCache[bytes, bytes] = cachebox.LRUCache(COUNT)

    def retain(keys: list[bytes]) -> None:
        for key in set(_keys()) - set(keys):
            del held[key]

    def spill(folder: Path) -> None:
        _pickled(dict(held.items()), folder)

    return Held(held.__setitem__, retain, spill)


def with_slots() -> Held:
    """The arena, its folder without a bound."""
    held = SlotArena(VECTOR_BYTES, 16)

    def spill(folder: Path) -> None:
        held.spill(SpillStore(folder, 1 << 40))

    return Held(held.put, held.retain, spill)


PEERS: dict[str, Callable[[], Held]] = {
    "dict of bytes": with_bytes,
    "dict of arrays": with_arrays,
    "cachebox": with_cachebox,
    "membudget SlotArena": with_slots,
}


def overhead_and_shrinking(peer: str) -> tuple[float, float, float]:
    """Bytes per vector beside it; per cent given back, and milliseconds of CPU, of shrinking to a random tenth."""
    keys = _keys()
    kept = random.Random(1).sample(keys, COUNT // 10)
    before = anonymous_bytes()
    held = _filled(peer, keys)
    full = anonymous_bytes()
    started = time.process_time()
    held.retain(kept)
    ctypes.CDLL(None).malloc_trim(0)
    milliseconds = 1000 * (time.process_time() - started)
    return (full - before) / COUNT - VECTOR_BYTES, 100 * (full - anonymous_bytes()) / (full - before), milliseconds


def spilling(peer: str) -> tuple[float, float, float, float]:
    """MB/s with fsync, of it beside a raw write of as many bytes; the same of CPU seconds; MiB of extra memory."""
    held = _filled(peer, _keys())
    with tempfile.TemporaryDirectory() as folder:
        # Before, and twice: the first writer pays for page cache that the next ones find.
        raw = min(_raw_write(Path(folder, "raw")) for _ in range(2))
        Path(folder, "raw").unlink()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _peak()
        started, worked = time.perf_counter(), time.process_time()
        held.spill(Path(folder))
        seconds, busy = time.perf_counter() - started, time.process_time() - worked
        extra = (_peak() - before) / MIB
    size = COUNT * VECTOR_BYTES / 1e6
    return size / seconds, raw / seconds, size / busy, extra


def _raw_write(path: Path) -> float:
    buffer = mmap.mmap(-1, COUNT * VECTOR_BYTES)
    buffer.write(os.urandom(MIB) * (len(buffer) // MIB))
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        view, done = memoryview(buffer), 0
        while done < len(view):
            done += file.write(view[done:]) or 0
        os.fsync(file.fileno())
    return time.perf_counter() - started


def _filled(peer: str, keys: list[bytes]) -> Held:
    held, block = PEERS[peer](), os.urandom(64 * VECTOR_BYTES)
    for number, key in enumerate(keys):
        start = number % 64 * VECTOR_BYTES
        held.put(key, block[start : start + VECTOR_BYTES])
    return held


def _keys() -> list[bytes]:
    """They are the caller's in each case."""
    return [number.to_bytes(16, "little") for number in range(COUNT)]


def _peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


if __name__ == "__main__":
    rows: list[tuple[object, ...]] = [
        (name, *in_fresh_process(overhead_and_shrinking, name), *in_fresh_process(spilling, name)) for name in PEERS
    ]
    table(
        f"{COUNT * VECTOR_BYTES / MIB:.0f} MiB of vectors (90 % is all that can be given back)",
        (
            "held in",
            "bytes beside each",
            "% back",
            "ms of CPU",
            "spilled at MB/s",
            "of a raw write",
            "MB/s of CPU",
            "extra MiB",
        ),
        rows,
    )
