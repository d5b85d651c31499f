"""Compression of values where it pays.

Covers: when a value is kept compressed (R-E02). Does not cover whether a policy wants it at all (`cache`).
"""

from __future__ import annotations

import zlib
from typing import Final

from membudget_runtime.errors import SpillDamaged

COMPRESS_FROM: Final = 1024
COMPRESS_WORTH: Final = 0.8
"""Compress values over 1 kB, and keep the compressed form only when it saves more than 20 % (R-E02)."""


INFLATED_AT_MOST: Final = 64 * 1024 * 1024
"""Bytes of a value that is compressed: one kilobyte on disk may stand for a megabyte in memory, made on purpose for
gigabytes."""


def packed(value: bytes) -> bytes:
    """The value compressed, or itself where that saves too little."""
    if COMPRESS_FROM < len(value) <= INFLATED_AT_MOST:
        smaller = zlib.compress(value, 1)
        if len(smaller) < COMPRESS_WORTH * len(value):
            return smaller
    return value


def unpacked(stored: bytes) -> bytes:
    """What `packed` made smaller."""
    return zlib.decompress(stored)


def unpacked_from_disk(stored: bytes, most_bytes: int = INFLATED_AT_MOST) -> bytes:
    """The same of bytes that somebody may have put there in place of ours.

    Raises:
        SpillDamaged: they are no compressed value, or of one larger than any of ours.
    """
    inflater = zlib.decompressobj()
    try:
        value = inflater.decompress(stored, most_bytes + 1)
    except zlib.error as error:
        raise SpillDamaged(f"{len(stored)} bytes from disk do not inflate: {error}") from None
    if len(value) > most_bytes or not inflater.eof:
        raise SpillDamaged(f"{len(stored)} bytes from disk inflate to more than {most_bytes}, or end early")
    return value
