"""Under which keys answers are kept: of one generation, one number of hits, one query.

Covers: keys. Does not cover what is kept under them (`semantic_cache`, `query_cache`).
"""

from __future__ import annotations

import hashlib
from typing import Final

TAG_BYTES: Final = 8
"""Of a generation's tag (`Collection.tag`), which a key begins with: what was found in another answers nobody."""

_HITS_BYTES: Final = 2
SHELF_BYTES: Final = TAG_BYTES + _HITS_BYTES
_DIGEST_BYTES: Final = 14
KEY_BYTES: Final = SHELF_BYTES + _DIGEST_BYTES
"""24, which the heap rounds to no more than 16."""


def query_key(tag: bytes, hits: int, query: str) -> bytes:
    """Of what was found for a query."""
    return shelf(tag, hits) + _digest(query)


def shelf(tag: bytes, hits: int) -> bytes:
    """What a key begins with: answers are alike only within one generation and number of hits."""
    return tag + hits.to_bytes(_HITS_BYTES)


def _digest(query: str) -> bytes:
    """Of the query without its spacing.

    Case stays: HTTPServer is two words to an embedder, httpserver one. What differs only in case and means the same
    is found by its vector.
    """
    words = " ".join(query.split())
    return hashlib.blake2b(words.encode(), digest_size=_DIGEST_BYTES).digest()
