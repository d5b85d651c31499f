"""Offers a cache more than it may hold. Usage: cache KIND FOLDER LINES CEILING_BYTES OFFERED_TIMES.

KIND: `bounded` is the runtime's cache under a ceiling, `dict` a dict without one. A value is a few of LINES, under a
key drawn by a Zipf law, the same for both, until so many times the ceiling was offered in distinct values. Stands still
at `empty`, `full REPORTED_BYTES HIT_RATIO`, `shrunk REPORTED_BYTES` (the ceiling at a tenth; of the dict nine of ten
entries deleted) and `cleared`. Before `empty` it was used and cleared: what is loaded or made at the first use counts
for no entry.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Final, Protocol

import msgspec

from membudget_cli.profile.measured.stages import stand_still
from membudget_contract.profiles import SEMANTIC_CACHE
from membudget_runtime.bounds import start_budgets
from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime

COLLECTION: Final = "profile"
KEYS: Final = 60_000
SKEW: Final = 0.8
"""As the questions of the demo's agents."""
LINES_OF_A_VALUE: Final = 4
"""About 2 kB, as an answer of a few chunks has."""
WARM_UP_SHARE: Final = 4
KEPT_SHARE: Final = 10
"""One in so many is kept by the shrink."""


class _Cache(Protocol):
    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> object: ...
    def owned_bytes(self) -> int: ...
    def shrink(self) -> None: ...
    def clear(self) -> None: ...


class Bounded:
    """The runtime's cache. A total far above the ceiling: the ceiling alone shall bound it."""

    def __init__(self, folder: Path, ceiling: int) -> None:
        self._environment = {"MEMBUDGET_TOTAL": "4Gi"}
        self._runtime = MemoryRuntime(folder, self._environment)
        self._cache: BoundedCache[bytes] = self._runtime.cache(SEMANTIC_CACHE, ttl_seconds=3600.0)
        self._ceiling = ceiling
        self._bound(ceiling)

    def get(self, key: bytes) -> bytes | None:
        """The value."""
        return self._cache.get(COLLECTION, key)

    def put(self, key: bytes, value: bytes) -> object:
        """Keep it, if there is room."""
        return self._cache.put(key, value, COLLECTION)

    def owned_bytes(self) -> int:
        """As it reports them."""
        return self._cache.owned_bytes()

    def shrink(self) -> None:
        """The live budget moves to a tenth."""
        self._bound(self._ceiling // KEPT_SHARE)

    def clear(self) -> None:
        """Drop all."""
        self._runtime.clear(SEMANTIC_CACHE)
        self._runtime.ledger.trim()

    def _bound(self, ceiling: int) -> None:
        budgets = start_budgets(self._environment)
        self._runtime.apply(msgspec.structs.replace(budgets, components={SEMANTIC_CACHE: ceiling}))


class Unbounded:
    """A dict."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value."""
        return self._values.get(key)

    def put(self, key: bytes, value: bytes) -> object:
        """Keep it."""
        self._values[key] = value
        return True

    def owned_bytes(self) -> int:
        """As one would count them: the values' lengths."""
        return sum(map(len, self._values.values()))

    def shrink(self) -> None:
        """Nine of ten entries go."""
        for number, key in enumerate([*self._values]):
            if number % KEPT_SHARE:
                del self._values[key]

    def clear(self) -> None:
        """Drop all."""
        self._values.clear()


def main(kind: str, folder: str, lines: str, ceiling: str, times: str) -> None:
    """Offer, shrink, clear."""
    values = Path(lines).read_bytes().splitlines()
    keys = _keys()
    cache: _Cache = Bounded(Path(folder), int(ceiling)) if kind == "bounded" else Unbounded()
    _offer(cache, keys, values, int(ceiling) // WARM_UP_SHARE)
    cache.clear()
    stand_still("empty")
    hit_ratio = _offer(cache, keys, values, int(ceiling) * int(times))
    stand_still("full", cache.owned_bytes(), hit_ratio)
    cache.shrink()
    stand_still("shrunk", cache.owned_bytes())
    cache.clear()
    stand_still("cleared")


def _keys() -> Iterator[int]:
    weights = list(accumulate(1 / rank**SKEW for rank in range(1, KEYS + 1)))
    generator = random.Random(7)  # noqa: S311  a trace, not a secret
    while True:
        yield from generator.choices(range(KEYS), cum_weights=weights, k=1_000)


def _offer(cache: _Cache, keys: Iterator[int], values: list[bytes], byte_count: int) -> float:
    """Ask, and put where it missed, until so many bytes of new keys came; the share of hits."""
    offered = hits = asked = 0
    known = bytearray(KEYS)
    while offered < byte_count:
        number = next(keys)
        key = number.to_bytes(16)
        asked += 1
        if cache.get(key) is not None:
            hits += 1
            continue
        first = number * LINES_OF_A_VALUE % len(values)
        value = b"\n".join(values[first : first + LINES_OF_A_VALUE])
        if not known[number]:
            known[number] = 1
            offered += len(value)
        cache.put(key, value)
    return hits / asked


if __name__ == "__main__":
    main(*sys.argv[1:])
