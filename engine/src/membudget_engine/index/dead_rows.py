"""Covers which rows of a segment hold no more: a bit for each, in memory and in a generation's file.

It does not cover who declares a row dead (overlay) nor passing over dead ones in an answer (segments). One thread at a
time adds rows; any number ask meanwhile.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from membudget_engine.errors import FileDamaged
from membudget_engine.index.manifest import DEAD_FILE, Manifest

_Bits = npt.NDArray[np.uint8]


class DeadRows:
    """Of one segment of `count` rows. Without a dead row it takes no memory."""

    def __init__(self, count: int, bits: _Bits | None = None) -> None:
        self.count = count
        self._bits = bits
        self.dead = 0 if bits is None else int(np.bitwise_count(bits).sum())

    def __contains__(self, row: int) -> bool:
        bits = self._bits
        return bits is not None and bool(bits[row >> 3] >> (row & 7) & 1)

    def among(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Of each of these rows: whether it is dead."""
        bits = self._bits
        if bits is None:
            return np.zeros(len(rows), dtype=np.bool_)
        return (bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(np.bool_)

    @property
    def owned_bytes(self) -> int:
        """Anonymous memory."""
        return 0 if self._bits is None else self._bits.nbytes

    def add(self, row: int) -> None:
        """This row holds no more."""
        if row not in self:
            if self._bits is None:
                self._bits = np.zeros(bits_bytes(self.count), dtype=np.uint8)
            self._bits[row >> 3] |= np.uint8(1 << (row & 7))
            self.dead += 1

    def copy(self) -> Self:
        """As it is now."""
        return type(self)(self.count, None if self._bits is None else self._bits.copy())

    def flags(self, first: int, rows: int) -> npt.NDArray[np.bool_]:
        """Of so many rows from the first on: whether they are dead."""
        if self._bits is None:
            return np.zeros(rows, dtype=np.bool_)
        begin = first >> 3
        bits = np.unpackbits(self._bits[begin : bits_bytes(first + rows)], bitorder="little")
        return bits[first - 8 * begin :][:rows].astype(np.bool_)

    def numbers(self) -> list[int]:
        """The dead ones, in order."""
        return np.flatnonzero(self.flags(0, self.count)).tolist()

    def packed(self) -> bytes:
        """As in the file."""
        return bytes(bits_bytes(self.count)) if self._bits is None else self._bits.tobytes()


def bits_bytes(count: int) -> int:
    """Of so many bits."""
    return -(-count // 8)


def survivors(former: Iterable[tuple[DeadRows, DeadRows]]) -> DeadRows:
    """The dead among the rows of a merged segment: of each it was made of, those dead when it was, and those now."""
    flags = [now.flags(0, now.count)[~then.flags(0, then.count)] for then, now in former]
    dead = np.concatenate(flags) if flags else np.zeros(0, dtype=np.bool_)
    return DeadRows(len(dead), np.packbits(dead, bitorder="little") if dead.any() else None)


def read_dead_rows(directory: Path, manifest: Manifest) -> tuple[DeadRows, ...]:
    """Of each segment of a generation whose files were verified. Raises FileDamaged, OSError."""
    segments = manifest.segments or (manifest,)
    if not manifest.dead_rows:
        return tuple(DeadRows(segment.count) for segment in segments)
    file = directory / DEAD_FILE
    bits = np.fromfile(file, dtype=np.uint8)
    ends = np.cumsum([bits_bytes(segment.count) for segment in segments])
    if len(bits) != ends[-1]:
        raise FileDamaged(f"{file} has {len(bits)} bytes, not {ends[-1]}: take another generation or rebuild")
    read = tuple(
        DeadRows(segment.count, own.copy() if own.any() else None)
        for segment, own in zip(segments, np.split(bits, ends[:-1]), strict=True)
    )
    if sum(rows.dead for rows in read) != manifest.dead_rows:
        raise FileDamaged(f"{file} says of other rows than its manifest that they are dead: rebuild")
    return read


def write_dead_rows(directory: Path, dead: Sequence[DeadRows]) -> Path | None:
    """Writes the file, and gives its path; none where no row is dead. Raises OSError."""
    if not any(rows.dead for rows in dead):
        return None
    file = directory / DEAD_FILE
    with file.open("wb") as stream:
        stream.writelines(rows.packed() for rows in dead)
    return file
