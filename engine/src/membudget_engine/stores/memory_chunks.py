"""Code chunks in memory: 280 bytes each for those of the standard library, and no object of their own.

Covers: a store that is bounded by number and counts in the ledger byte by byte; the least recently used gives way. Does
not cover the record (`code_chunk`), where its bytes lie (`packed_records`), the table (`packed_table`), or keeping
anything across a restart (`database_chunks`).

A record is its activation, the number of its path, its id, and its packed text; a path is kept once for all chunks of
its file.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import Final, cast

from membudget_contract.policy import DEFAULT_COLLECTION, Priority
from membudget_engine.errors import ChunkStoreClosed
from membudget_engine.stores.code_chunk import CodeChunk, packed_text, unpacked_chunk
from membudget_engine.stores.packed_records import BLOCK_BYTES, PackedRecords
from membudget_engine.stores.packed_table import NONE, PackedTable
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.memory_runtime import MemoryRuntime

CHUNK_STORE: Final = "chunkStore"

MOVE_FROM: Final = 0.25
"""Of the bytes dead: then records are moved together."""

_HEAD: Final = struct.Struct("<fIH")
_ACTIVATION: Final = struct.Struct("<f")
_ENTRY_BYTES: Final = 32
"""Of the table, at most, for one chunk more."""
LONGEST_ID: Final = 0xFFFF
"""Bytes."""
_ROUNDING: Final = 16
"""The heap's step."""


class _Paths:
    """Each path once, under a number, as long as a chunk uses it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._uses: list[int] = []
        self._free: list[int] = []
        self._names_bytes = 0

    @property
    def byte_count(self) -> int:
        """On the heap."""
        tables = (self.names, self._numbers, self._uses, self._free)
        return self._names_bytes + sum(map(sys.getsizeof, tables))

    def take(self, path: str) -> int:
        number = self._numbers.get(path)
        if number is None:
            number = self._free.pop() if self._free else len(self.names)
            if number == len(self.names):
                self.names.append(path)
                self._uses.append(0)
            self.names[number] = path
            self._numbers[path] = number
            self._names_bytes += _heap_bytes(path)
        self._uses[number] += 1
        return number

    def give_back(self, number: int) -> None:
        self._uses[number] -= 1
        if not self._uses[number]:
            path = self.names[number]
            self._names_bytes -= _heap_bytes(path)
            del self._numbers[path]
            self.names[number] = ""
            self._free.append(number)


def _heap_bytes(text: str) -> int:
    return -(-sys.getsizeof(text) // _ROUNDING) * _ROUNDING


class MemoryChunkStore(Component):
    """Chunks by id, all of one collection's class. Thread-safe; registers itself with the runtime."""

    def __init__(
        self,
        runtime: MemoryRuntime,
        *,
        max_chunks: int | None = None,
        collection: str = DEFAULT_COLLECTION,
        name: str = CHUNK_STORE,
    ) -> None:
        """`max_chunks` None: bytes alone bound it."""
        super().__init__(name)
        self._ledger = runtime.ledger
        self._max = max_chunks
        self._collection = collection
        self._records = PackedRecords()
        self._table = PackedTable(self._is_of)
        self._paths = _Paths()
        self._evictions = 0
        self._closed = False
        runtime.register(self)

    def __len__(self) -> int:
        return len(self._table)

    def save(self, chunks: Iterable[CodeChunk]) -> None:
        """Keep these; one that is kept already gets the new text, and keeps its activation.

        Raises:
            NoRoom, ValueTooLarge: a chunk finds no room; those before it are kept.
            ValueError: a chunk has a text of 256 kB, or an id of 64 kB or with a surrogate.
            ChunkStoreClosed: after `close`.
        """
        for chunk in chunks:
            text = packed_text(chunk)
            with self._ledger.lock:
                self._refuse_closed()
                self._save(chunk, text)

    def get(self, chunk_id: str) -> CodeChunk | None:
        """The chunk, used now; None when there is none. Raises ChunkStoreClosed."""
        with self._ledger.lock:
            self._refuse_closed()
            entry = self._table.find(chunk_id)
            if entry == NONE:
                return None
            if self._max is not None:
                self._table.use(entry)
            record = self._records.read(self._table.places[entry])
            activation, path, length = cast("tuple[float, int, int]", _HEAD.unpack_from(record))
            path_name = self._paths.names[path]
        return unpacked_chunk(chunk_id, path_name, record[_HEAD.size + length :], activation)

    def activate(self, chunk_id: str, activation: float) -> bool:
        """Set its activation; whether it is there. Raises ChunkStoreClosed."""
        with self._ledger.lock:
            self._refuse_closed()
            entry = self._table.find(chunk_id)
            if entry != NONE:
                self._records.write(self._table.places[entry], _ACTIVATION.pack(activation))
            return entry != NONE

    def delete(self, chunk_id: str) -> bool:
        """Forget it; whether it was there. Raises ChunkStoreClosed."""
        with self._ledger.lock:
            self._refuse_closed()
            entry = self._table.find(chunk_id)
            if entry != NONE:
                self._drop(entry)
                self._move_together()
            return entry != NONE

    def close(self) -> None:
        """Give everything back to the kernel."""
        with self._ledger.lock:
            self._records.clear()
            self._table, self._paths = PackedTable(self._is_of), _Paths()
            self._closed = True
        self._ledger.trim()

    def owned_bytes(self) -> int:
        """Of records, their table and the paths; an empty store has none."""
        if not self._table:
            return 0
        return self._records.resident_bytes + self._table.byte_count + self._paths.byte_count

    def collections(self) -> list[CollectionUse]:
        """One."""
        return [CollectionUse(self._collection, len(self._table), self.owned_bytes())] if self._table else []

    def evictions(self) -> int:
        """Chunks that gave way, to bytes or to the number."""
        return self._evictions

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Drop the least recently used chunks until `target_bytes` are freed."""
        removed, before = Removed(), self.owned_bytes()
        if not ranking.may_evict(self._collection, priority):
            return removed
        while self._table and before - self.owned_bytes() < target_bytes:
            batch = 0
            while self._table and batch < max(BLOCK_BYTES, target_bytes // 4):
                dropped = self._drop(self._table.oldest)
                batch += dropped
                removed.count(self._collection, dropped)
            self._move_together(sparse_share=0.0)
        self._evictions += removed.entries
        removed.freed_bytes = before - self.owned_bytes()
        return removed

    def _save(self, chunk: CodeChunk, text: bytes) -> None:
        identity = chunk.id.encode()
        if len(identity) > LONGEST_ID:
            raise ValueError(f"an id has at most {LONGEST_ID} bytes, not {len(identity)}")
        activation = chunk.activation
        former = self._table.find(chunk.id)
        if former != NONE:
            activation, _, _ = _HEAD.unpack_from(self._records.read(self._table.places[former]))
        elif self._max is not None and len(self._table) >= self._max:
            self._drop(self._table.oldest)
            self._evictions += 1
            self._move_together()
        priority = self._ledger.bounds.ranking.priority(self._collection)
        self._ledger.admit(self, len(text) + len(identity) + _HEAD.size + _ENTRY_BYTES, priority)
        # Asked again: room may have been made by dropping the former one.
        former = self._table.find(chunk.id)
        if former != NONE:
            self._drop(former)
        head = _HEAD.pack(activation, self._paths.take(chunk.path), len(identity))
        self._table.add(chunk.id, self._records.add(head + identity + text))

    def _is_of(self, entry: int, chunk_id: str) -> bool:
        record = self._records.read(self._table.places[entry])
        length: int = _HEAD.unpack_from(record)[2]
        return record[_HEAD.size : _HEAD.size + length] == chunk_id.encode(errors="surrogatepass")

    def _drop(self, entry: int) -> int:
        """The chunk leaves; bytes that come free with it, at the latest when records are moved together."""
        place = self._table.places[entry]
        path: int = _HEAD.unpack_from(self._records.read(place))[1]
        self._paths.give_back(path)
        self._records.drop(place)
        self._table.remove(entry)
        if not self._table:
            self._paths = _Paths()
        return self._records.length(place) + _ENTRY_BYTES

    def _move_together(self, sparse_share: float = MOVE_FROM) -> None:
        self._table.shrink()
        if self._records.dead_bytes() <= max(BLOCK_BYTES, sparse_share * self._records.resident_bytes):
            return
        places = self._table.places
        for entry, place in self._records.moved_together([(entry, places[entry]) for entry in self._table]):
            places[entry] = place

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ChunkStoreClosed("the chunk store was closed")
