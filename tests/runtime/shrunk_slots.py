"""An arena of vectors that shrinks to a random tenth, measured by the kernel: to be run in a process of its own."""

import ctypes
import random
from pathlib import Path
from typing import NamedTuple

from membudget_runtime.slots import SlotArena

KEY_BYTES = 8
VECTOR_BYTES = 2048


def key_of(number: int, length: int = KEY_BYTES) -> bytes:
    """Neighbouring numbers, whose hashes have nothing in common."""
    return number.to_bytes(length, "little")


def status_bytes(field: str) -> int:
    """Of this process, as the kernel tells it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def anonymous_bytes() -> int:
    """RssAnon."""
    return status_bytes("RssAnon")


class Measured(NamedTuple):
    """What the kernel charged for an arena, and what the arena said: full, and when nine tenths had gone."""

    grown: int
    told: int
    left: int
    told_left: int


def shrunk_to_a_random_tenth(one_by_one: bool, count: int) -> Measured:
    """Vectors of 512 dimensions; to be run in a process of its own, whose heap holds nothing free."""
    chance = random.Random(1)
    keys = [key_of(number, 16) for number in range(count)]
    kept = chance.sample(keys, count // 10)
    leaving = list(set(keys) - set(kept))
    value = chance.randbytes(VECTOR_BYTES)
    before = anonymous_bytes()
    arena = SlotArena(VECTOR_BYTES, 16)
    for key in keys:
        arena.put(key, value)
    grown, told = anonymous_bytes() - before, arena.owned_bytes()
    if one_by_one:
        for key in leaving:
            arena.remove(key)
    else:
        arena.retain(kept)
    assert all(arena.get(key) == value for key in kept)
    ctypes.CDLL(None).malloc_trim(0)
    return Measured(grown, told, anonymous_bytes() - before, arena.owned_bytes())
