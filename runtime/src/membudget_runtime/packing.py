"""Compression of values where it pays.

Covers: when a value is kept compressed (R-E02). Does not cover whether a policy wants it at all (`cache`).
"""

from __future__ import annotations

import zlib
from typing import Final

COMPRESS_FROM: Final = 1024
COMPRESS_WORTH: Final = 0.8
"""Compress values over 1 kB, and keep the compressed form only when it saves more than 20 % (R-E02)."""


def packed(value: bytes) -> bytes:
    """The value compressed, or itself where that saves too little."""
    if len(value) > COMPRESS_FROM:
        smaller = zlib.compress(value, 1)
        if len(smaller) < COMPRESS_WORTH * len(value):
            return smaller
    return value


def unpacked(stored: bytes) -> bytes:
    """What `packed` made smaller."""
    return zlib.decompress(stored)
