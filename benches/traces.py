"""The traces that replacement.py replays: seeded, so that each run sees the same requests.

Not a benchmark itself. All are drawn over 100,000 keys with zipf popularity: the r-th most popular key is asked for
with a weight of 1/r. 500,000 requests each.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate
from typing import Final

KEYS: Final = 100_000
REQUESTS: Final = 500_000
SCAN_EVERY: Final = 20_000
SCAN_KEYS: Final = 6_000


def zipf() -> list[int]:
    """Popularity never changes."""
    return _renamed(_ranks(seed=1), every=REQUESTS)


def scan_mixed() -> list[int]:
    """The zipf trace, and after every 20,000 requests of it a scan of 6,000 keys that come once and never again."""
    steady, mixed, fresh = zipf(), list[int](), KEYS
    for start in range(0, REQUESTS, SCAN_EVERY):
        mixed += steady[start : start + SCAN_EVERY]
        mixed += range(fresh, fresh + SCAN_KEYS)
        fresh += SCAN_KEYS
    return mixed[:REQUESTS]


def shifting(every: int) -> list[int]:
    """After so many requests popularity is dealt anew among all keys."""
    return _renamed(_ranks(seed=2), every)


def sliding() -> list[int]:
    """After every 25,000 requests each key takes the popularity of the one 2,000 ranks above it."""
    return [(rank + number // 25_000 * 2_000) % KEYS for number, rank in enumerate(_ranks(seed=4))]


TRACES: Final[dict[str, Callable[[], list[int]]]] = {
    "zipf": zipf,
    "scan": scan_mixed,
    "shift 100k": lambda: shifting(100_000),
    "shift 50k": lambda: shifting(50_000),
    "slide": sliding,
}


def _ranks(seed: int) -> list[int]:
    weights = list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    return random.Random(seed).choices(range(KEYS), cum_weights=weights, k=REQUESTS)


def _renamed(ranks: list[int], every: int) -> list[int]:
    chance, names, renamed = random.Random(3), list(range(KEYS)), list[int]()
    for start in range(0, len(ranks), every):
        chance.shuffle(names)
        renamed += [names[rank] for rank in ranks[start : start + every]]
    return renamed
