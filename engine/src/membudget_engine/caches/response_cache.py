"""Whole responses to look-ups by name: what was put together and encoded once is sent again as it is.

Covers: encoded chunks by collection, generation and id. Does not cover searches: which chunks answer a query stands in
the query cache and in the semantic cache. An agent that got its hits fetches the same few chunks again
and again; from here it costs neither SQLite nor a decompression.
"""

from __future__ import annotations

import hashlib
from typing import Final

from membudget_contract.quantities import MIB
from membudget_engine.caches.counted_cache import CountedCache, Counts
from membudget_runtime.memory_runtime import MemoryRuntime

RESPONSE_CACHE: Final = "responseCache"
ENTRIES: Final = 50
TTL_SECONDS: Final = 300.0
MAX_BYTES: Final = 2 * MIB
"""Where no plan names a ceiling: 50 chunks of 40 kB."""

_DIGEST_BYTES: Final = 16


class ResponseCache:
    """Encoded bodies by collection, its generation's tag, and what was asked for. Thread-safe."""

    def __init__(self, runtime: MemoryRuntime) -> None:
        self.kept = CountedCache(
            RESPONSE_CACHE, runtime, counts=Counts(ENTRIES), max_bytes=MAX_BYTES, ttl_seconds=TTL_SECONDS
        )

    def get(self, collection: str, tag: bytes, asked: str) -> bytes | None:
        """The body; None when it is not kept."""
        return self.kept.get(collection, tag + _digest(asked))

    def keep(self, collection: str, tag: bytes, asked: str, body: bytes) -> None:
        """Keep a body, if there is room for it."""
        self.kept.put(collection, tag + _digest(asked), body)


def _digest(asked: str) -> bytes:
    return hashlib.blake2b(asked.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
