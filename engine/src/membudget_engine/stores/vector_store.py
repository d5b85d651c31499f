"""Vectors by id: at most 5,000 of them hot in memory as float16, every one of them on disk.

Covers: keeping, finding, the order of use, exact bytes of what is hot, errors of the disk. Does not cover searching
(`index`) nor a restart: the file has no name, and goes with the process. The float32 vector that was given is kept
nowhere: a hot row is a copy of the row on disk, bit by bit, so that a vector is the same whichever way it is found.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_contract.policy import DEFAULT_COLLECTION, Priority
from membudget_engine.errors import VectorInvalid, VectorStoreFailed
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.slots import SlotArena

VECTOR_STORE: Final = "vectorStore"
HOT_VECTORS: Final = 5000

_LARGEST: Final = float(np.finfo(np.float16).max)
_HOT_BYTES: Final = 70
"""Of a hot vector beside its row, at most: its key and its places in the arena's table and in the order of use."""
_KEY_BYTES: Final = 8
_KNOWN_BYTES: Final = 32
"""Of any vector beside its id and the table: the number of its row on disk."""
_ROUNDING: Final = 16
"""The heap's step."""

_Vector = npt.NDArray[np.float32]


class VectorStore(Component):
    """Vectors of one length. Thread-safe; registers itself with the runtime."""

    def __init__(
        self,
        runtime: MemoryRuntime,
        folder: Path,
        dimension: int,
        *,
        hot_vectors: int = HOT_VECTORS,
        collection: str = DEFAULT_COLLECTION,
    ) -> None:
        """The file is made in `folder`. Raises OSError when it cannot be."""
        super().__init__(VECTOR_STORE)
        self.reads = 0
        """From disk."""
        self._ledger = runtime.ledger
        self._dimension = dimension
        self._row_bytes = dimension * np.dtype(np.float16).itemsize
        self._most = hot_vectors
        self._collection = collection
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  closed by `close`
        self._numbers: dict[bytes, int] = {}
        """Where each vector's row is in the file."""
        self._free: list[int] = []
        self._hot = SlotArena(self._row_bytes, _KEY_BYTES)
        """Rows by their number."""
        self._used: dict[int, None] = {}
        """Numbers of the hot ones, oldest use first."""
        self._ids_bytes = 0
        self._evictions = 0
        runtime.register(self)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def hot(self) -> int:
        """Vectors in memory."""
        return len(self._hot)

    def put(self, vector_id: bytes, vector: _Vector) -> None:
        """Keep a vector, in place of an older one of this id; it is hot where there is room for it.

        Raises:
            VectorInvalid: it has another length, or a value that float16 does not hold.
            VectorStoreFailed: the disk did not take it; what was kept under this id is as it was, on disk or gone.
        """
        row = self._checked(vector)
        with self._ledger.lock:
            number = self._numbers.get(vector_id)
            if number is not None:
                self._write(number, row)
            else:
                number = self._free[-1] if self._free else len(self._numbers)
                self._write(number, row)
                if self._free:
                    self._free.pop()
                self._numbers[vector_id] = number
                self._ids_bytes += _heap_bytes(vector_id)
            self._warm(number, row)

    def get(self, vector_id: bytes) -> _Vector | None:
        """The vector, used now; None when there is none. Raises VectorStoreFailed."""
        with self._ledger.lock:
            number = self._numbers.get(vector_id)
            if number is None:
                return None
            row = self._hot.get(_key(number))
            if row is not None:
                del self._used[number]
                self._used[number] = None
            else:
                row = self._read(number)
                self.reads += 1
                self._warm(number, row)
        return np.frombuffer(row, dtype=np.float16).astype(np.float32)

    def remove(self, vector_id: bytes) -> bool:
        """Forget a vector; whether there was one."""
        with self._ledger.lock:
            number = self._numbers.pop(vector_id, None)
            if number is None:
                return False
            self._free.append(number)
            self._ids_bytes -= _heap_bytes(vector_id)
            self._cool(number)
            return True

    def close(self) -> None:
        """Give memory and disk back."""
        with self._ledger.lock:
            self._file.close()
            self._numbers, self._free, self._used, self._ids_bytes = {}, [], {}, 0
            self._hot = SlotArena(self._row_bytes, _KEY_BYTES)

    def owned_bytes(self) -> int:
        """Of hot rows, whole pages, and of what is known of every vector."""
        if not self._numbers:
            return 0
        tables = sys.getsizeof(self._numbers) + sys.getsizeof(self._free) + self._ids_bytes
        known = tables + _KNOWN_BYTES * len(self._numbers)
        return known + self._hot.owned_bytes() + sys.getsizeof(self._used)

    def collections(self) -> list[CollectionUse]:
        """One, of what can be evicted: hot rows."""
        held = self._hot_bytes() * len(self._hot)
        return [CollectionUse(self._collection, len(self._hot), held)] if self._hot else []

    def evictions(self) -> int:
        """Vectors that left memory, for others or for bytes."""
        return self._evictions

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Leave the least recently used to the disk until `target_bytes` are freed."""
        removed, before = Removed(), self.owned_bytes()
        if not ranking.may_evict(self._collection, priority):
            return removed
        while self._used and before - self.owned_bytes() < target_bytes:
            removed.count(self._collection, self._hot_bytes())
            self._cool_oldest()
        removed.freed_bytes = before - self.owned_bytes()
        return removed

    def _checked(self, vector: _Vector) -> bytes:
        if vector.shape != (self._dimension,):
            raise VectorInvalid(f"a vector has {self._dimension} places, not the shape {vector.shape}")
        if not np.isfinite(vector).all() or np.abs(vector).max(initial=0.0) > _LARGEST:
            raise VectorInvalid(f"a value is no number, or beyond {_LARGEST:g}, the largest of float16")
        return vector.astype(np.float16).tobytes()

    def _warm(self, number: int, row: bytes) -> None:
        """Keep the row in memory as the newest, where there is room; an older one is not kept beside it."""
        self._cool(number)
        if len(self._hot) >= self._most:
            self._cool_oldest()
        try:
            priority = self._ledger.bounds.ranking.priority(self._collection)
            self._ledger.admit(self, self._hot_bytes(), priority)
        except (NoRoom, ValueTooLarge):
            return
        self._hot.put(_key(number), row)
        self._used[number] = None

    def _cool_oldest(self) -> None:
        self._cool(next(iter(self._used)))
        self._evictions += 1

    def _cool(self, number: int) -> None:
        if number in self._used:
            del self._used[number]
            self._hot.remove(_key(number))
        if not self._used:
            self._used = {}

    def _hot_bytes(self) -> int:
        return self._row_bytes + _HOT_BYTES

    def _write(self, number: int, row: bytes) -> None:
        try:
            written = os.pwrite(self._file.fileno(), row, number * self._row_bytes)
        except (OSError, ValueError) as error:
            raise VectorStoreFailed(f"a vector was not kept: {error}") from error
        if written != self._row_bytes:
            raise VectorStoreFailed(f"a vector was not kept: the disk took {written} of {self._row_bytes} bytes")

    def _read(self, number: int) -> bytes:
        try:
            content = os.pread(self._file.fileno(), self._row_bytes, number * self._row_bytes)
        except (OSError, ValueError) as error:
            raise VectorStoreFailed(f"a vector cannot be read: {error}") from error
        if len(content) != self._row_bytes:
            raise VectorStoreFailed(f"a vector cannot be read: {len(content)} of {self._row_bytes} bytes are there")
        return content


def _heap_bytes(vector_id: bytes) -> int:
    return -(-sys.getsizeof(vector_id) // _ROUNDING) * _ROUNDING


def _key(number: int) -> bytes:
    return number.to_bytes(_KEY_BYTES, "little")
