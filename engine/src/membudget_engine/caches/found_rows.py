"""What an index found for a query, as caches keep it: a dozen bytes for each hit.

Covers: rows and scores as bytes and back. Does not cover the chunks' texts, which come from the chunk store: a whole
answer has fifty times the bytes, and the same chunk stands in many.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

FoundRow = tuple[float, int]
"""Score and row of one hit. Scores are float32, as the index gives them."""

_HIT: Final = struct.Struct("<fq")


def packed_rows(found: Sequence[FoundRow]) -> bytes:
    """In their order."""
    return b"".join(_HIT.pack(*hit) for hit in found)


def unpacked_rows(stored: bytes) -> list[FoundRow]:
    """The inverse."""
    return [*_HIT.iter_unpack(stored)]
