"""The chunks of a sealed segment as answers show them: JSON, row after row in one file.

Covers: writing the file from a segment's chunk store, and reading rows of it, also where no disk may be waited for.
Does not cover the store (`chunk_store`), which finds chunks by id, and which later segments are made of.

A store's rows are looked up in a tree of pages, inflated, checked and encoded: five times the processor time
(`benches/shown_chunks.py`), and nobody can ask a database whether it would wait for its disk. A text is two reads at
known places, and none of it is in this process's resident memory. After the texts come a table of 16 bytes a row, where
its text begins, its length, and a crc32 of text and row, and then the version of the form.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from membudget_engine.errors import ChunkMissing, ChunkStoreClosed, ChunkStoreInvalid
from membudget_engine.index.steady_file import SteadyFile
from membudget_engine.stores.chunk_store import ChunkStore

TEXTS_FILE: Final = "chunks.texts"

_PLACE: Final = struct.Struct("<QII")
_PLACE_BYTES: Final = _PLACE.size
_Place = tuple[int, int, int]
"""Where a row's text begins, its length, its crc32."""

_VERSION: Final = b"chunks 1"
"""The end of the file. Whoever changes what a Chunk is as JSON changes it too."""

_NOW: Final = os.RWF_NOWAIT
"""What is not in memory is not waited for; the kernel begins to read it."""
MOST_HELD_BYTES: Final = 256 * 1024
"""Of texts that are read where nothing may wait: a fifth of a millisecond to read, compare and join. Ten have 10 kB."""

_TABLE_BLOCK_BYTES: Final = 1024 * 1024

Text = bytes | bytearray
"""One chunk as JSON."""


class Texts(Protocol):
    """The texts of one segment. Thread-safe."""

    def held(self, rows: Sequence[int]) -> list[Text] | None:
        """The texts of these rows, where memory has them all; None where a disk would be waited for, or much is read.

        Raises ChunkMissing, ChunkStoreInvalid.
        """
        ...

    def get(self, rows: Sequence[int]) -> list[Text]:
        """The texts of these rows. Raises ChunkMissing for a row that is not there, ChunkStoreInvalid, OSError."""
        ...

    def close(self) -> None:
        """Later calls raise ChunkStoreClosed or ChunkStoreInvalid; those in work go on."""
        ...


class ChunkTexts:
    """Reads the file, without mapping it."""

    def __init__(self, file: Path, count: int) -> None:
        """Raises ChunkStoreInvalid when it has no table of so many rows, OSError."""
        self._file = file
        self._count = count
        self._descriptor: _Descriptor | None = _Descriptor(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
        end = os.fstat(self._descriptor.number).st_size - len(_VERSION)
        self._table_at = end - count * _PLACE_BYTES
        if self._table_at < 0:
            raise self._damage(f"too short for a table of {count} rows")
        if bytes(self._read(self._descriptor, end, len(_VERSION), 0)) != _VERSION:
            raise self._damage(f"it does not end in {_VERSION!r}")

    def held(self, rows: Sequence[int]) -> list[Text] | None:
        """As `Texts.held`; None also where the file system cannot say."""
        opened = self._open()
        try:
            places = [self._place(opened, row, _NOW) for row in rows]
            if sum(length for _, length, _ in places) > MOST_HELD_BYTES:
                return None
            return [self._text(opened, row, place, _NOW) for row, place in zip(rows, places, strict=True)]
        except OSError:
            return None

    def get(self, rows: Sequence[int]) -> list[Text]:
        """As `Texts.get`: texts that are not in memory are asked of the disk before the first is waited for."""
        texts = self.held(rows)
        if texts is not None:
            return texts
        opened = self._open()
        places = [self._place(opened, row) for row in rows]
        for at, length, _ in places:
            os.posix_fadvise(opened.number, at, length, os.POSIX_FADV_WILLNEED)
        return [self._text(opened, row, place) for row, place in zip(rows, places, strict=True)]

    def close(self) -> None:
        """As `Texts.close`."""
        self._descriptor = None

    def _place(self, opened: _Descriptor, row: int, flags: int = 0) -> _Place:
        if not 0 <= row < self._count:
            raise ChunkMissing(f"{self._file} has no row {row}, of {self._count} rows: index and texts differ")
        entry = self._read(opened, self._table_at + row * _PLACE_BYTES, _PLACE_BYTES, flags)
        place: _Place = _PLACE.unpack(entry)
        if place[0] + place[1] > self._table_at:
            raise self._damage(f"row {row} would lie beyond the texts")
        return place

    def _text(self, opened: _Descriptor, row: int, place: _Place, flags: int = 0) -> Text:
        at, length, checksum = place
        text = self._read(opened, at, length, flags)
        if _checksum(text, row) != checksum:
            raise self._damage(f"the {length} bytes from {at} on are other ones than were written")
        return text

    def _read(self, opened: _Descriptor, at: int, length: int, flags: int) -> bytearray:
        """Raises BlockingIOError when not all of it can be had under these flags, OSError, ChunkStoreInvalid."""
        buffer = bytearray(length)
        read = os.preadv(opened.number, [buffer], at, flags)
        if read != length:
            if flags:
                raise BlockingIOError
            raise self._damage(f"the {length} bytes from {at} on end after {read}")
        return buffer

    def _open(self) -> _Descriptor:
        opened = self._descriptor
        if opened is None:
            raise ChunkStoreClosed(f"{self._file} was closed: ask the collection for its present store")
        return opened

    def _damage(self, what: str) -> ChunkStoreInvalid:
        return ChunkStoreInvalid(f"{self._file}: {what}; take another generation or rebuild")


class EncodedChunks:
    """The same for a segment that was written before there was such a file: from its chunk store."""

    def __init__(self, store: ChunkStore) -> None:
        """Whoever opened the store closes it."""
        self._store = store

    def held(self, rows: Sequence[int]) -> list[Text] | None:
        """Never: a database does not say what it would wait for."""
        del rows

    def get(self, rows: Sequence[int]) -> list[Text]:
        """As `Texts.get`."""
        return [msgspec.json.encode(chunk) for chunk in self._store.get(rows)]

    def close(self) -> None:
        """The store's."""


def write_texts(store: Path, file: Path, count: int) -> None:
    """Write every chunk of a sealed store of so many. In memory are 16 bytes a row.

    Raises ChunkStoreInvalid: the store is damaged, or has another number of chunks; OSError.
    """
    table = bytearray(count * _PLACE_BYTES)
    encoder, at = msgspec.json.Encoder(), 0
    chunks = ChunkStore(store)
    try:
        if chunks.count() != count:
            raise ChunkStoreInvalid(f"{store} has {chunks.count()} chunks, not {count}: rebuild it")
        with file.open("wb") as stream:
            steady = SteadyFile(stream)
            for row, chunk in enumerate(chunks.in_order()):
                text = encoder.encode(chunk)
                _PLACE.pack_into(table, row * _PLACE_BYTES, at, len(text), _checksum(text, row))
                steady.write(text)
                at += len(text)
            for begin in range(0, len(table), _TABLE_BLOCK_BYTES):
                steady.write(bytes(table[begin : begin + _TABLE_BLOCK_BYTES]))
            steady.write(_VERSION)
    finally:
        chunks.close()


def _checksum(text: Text, row: int) -> int:
    """Of the row too: no entry of the table stands for another, nor one of zeros for an empty text."""
    return zlib.crc32(text, row + 1)


class _Descriptor:
    """An open file that is closed when the last call that has it has ended: its number may be another file's then."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)
