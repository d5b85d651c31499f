"""Vectors of texts, so that no text is embedded twice: the last used as they are, the others compressed.

Covers: two levels in slot arenas, exact owned bytes, time to live, eviction by class, entries across a restart. Does
not cover one level (`vector_level`), which vectors go first (`vector_orders`), their compressed form
(`reduction.quantization`), nor asking an embedder (`cached_embedder`).

A new vector is hot. When the hot level is over its share, those not used for longest are compressed; used again, they
are hot again, as what compression left of them: such a vector answers queries and is never written to a collection.
A vector belongs to no generation: answers found with it end with each write, it does not. It counts as the collection's
that brought it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from membudget_contract.control_api import Budgets
from membudget_contract.policy import DEFAULT_COLLECTION, EVICTABLE, Priority
from membudget_contract.quantities import MIB
from membudget_engine.caches.vector_level import BESIDE_BYTES, KEY_BYTES, Note, Rows, VectorLevel
from membudget_engine.caches.vector_orders import Adaptive, VectorOrder
from membudget_engine.reduction.quantization import Float16, Quantization
from membudget_runtime.cache_counters import CacheCounters
from membudget_runtime.component import CollectionUse, Component, Ranking, Removed
from membudget_runtime.entry_file import KeptEntry
from membudget_runtime.errors import NoRoom, ValueTooLarge
from membudget_runtime.memory_runtime import MemoryRuntime

EMBEDDING_CACHE: Final = "embeddingCache"
MAX_BYTES: Final = 8 * MIB
"""Where no plan names a ceiling: 8,500 vectors of 384 places."""
TTL_SECONDS: Final = 24 * 3600.0
"""An embedder's vectors change with its name only; a day bounds what a server changed without saying so."""

HOT_SHARE: Final = 0.25
"""Of the bytes: a hit there takes no decoding, one in the other level as many microseconds as a text takes
milliseconds to embed, and twice as many fit there."""
STEP_ROWS: Final = 256
"""Compressed or dropped in one go: two milliseconds."""
OVER_SHARE: Final = 64
"""One in so many bytes of the bound goes at once."""

_EMBEDDER_BYTES: Final = 4
_PLAIN: Final = "float32"

_Vector = npt.NDArray[np.float32]


class EmbeddingCache(Component):
    """Vectors by text, of one embedder. Thread-safe; registers itself with the runtime."""

    def __init__(  # noqa: PLR0913  each is a decision of the owner
        self,
        runtime: MemoryRuntime,
        embedder: str,
        dimension: int,
        *,
        max_bytes: int = MAX_BYTES,
        ttl_seconds: float = TTL_SECONDS,
        quantization: Quantization | None = None,
        order: Callable[[], VectorOrder] = Adaptive,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`embedder` is its name; float16 where no `quantization` is given."""
        super().__init__(EMBEDDING_CACHE)
        self.counters = CacheCounters()
        self._ledger = runtime.ledger
        self._embedder = blake2b(embedder.encode(), digest_size=_EMBEDDER_BYTES).digest()
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._form = Float16() if quantization is None else quantization
        self._new_order = order
        self._order = order()
        self._clock = clock
        self._started = clock()
        self._used = 0
        self._owners = _Owners()
        self.hot = VectorLevel(dimension * np.dtype(np.float32).itemsize)
        self.cold = VectorLevel(self._form.row_bytes(dimension))
        runtime.register(self)

    def __len__(self) -> int:
        return len(self.hot) + len(self.cold)

    def get(self, text: str, *, exact: bool = False) -> _Vector | None:
        """The text's vector; None when it is not there, past its time, or not `exact` any more where that is asked."""
        key = self._key(text)
        with self._ledger.lock:
            level, row = self._found(key)
            if level is None or (exact and level.note(row).rounded):
                self.counters.misses += 1
                return None
            self._used += 1
            level.use(row, self._used)
            level.hits += 1
            self.counters.hits += 1
            stored = level.slots.value_at(row)
            if level is self.hot:
                return np.frombuffer(stored, dtype=np.float32)
            vector = self._form.decoded(stored)
            self._promote(row, vector)
        return vector

    def put(self, text: str, vector: _Vector, collection: str = DEFAULT_COLLECTION) -> bool:
        """Keep the text's vector, in place of an older one; False when there is no room for it."""
        key = self._key(text)
        with self._ledger.lock:
            self._drop_key(key)
            self._used += 1
            uses = self._order.uses_of_new(key, len(self) + 1)
            return self._take(key, vector, collection, uses, self._ttl, rounded=False)

    def clear(self) -> int:
        """Drop everything; how many."""
        with self._ledger.lock:
            dropped = len(self)
            self._drop_owned([number for number, _ in self._owners.named()])
            return dropped

    def drop(self, collection: str) -> int:
        """Drop what this collection brought; how many."""
        with self._ledger.lock:
            before = len(self)
            self._drop_owned([number for number, name in self._owners.named() if name == collection])
            return before - len(self)

    def owned_bytes(self) -> int:
        """Of both levels, the order and the names."""
        return self.hot.owned_bytes() + self.cold.owned_bytes() + self._order.owned_bytes() + self._owners.owned_bytes()

    def evictions(self) -> int:
        """Vectors that gave way since start."""
        return self.counters.evictions

    def collections(self) -> list[CollectionUse]:
        """Bytes of their vectors and of what stands beside them."""
        uses: list[CollectionUse] = []
        for number, name in self._owners.named():
            hot, cold = (len(level.rows_of(_numbers([number]))) for level in (self.hot, self.cold))
            if hot + cold:
                held = hot * self._cost(self.hot) + cold * self._cost(self.cold)
                uses.append(CollectionUse(name, hot + cold, held))
        return uses

    def apply(self, budgets: Budgets) -> str | None:
        """Come down to a ceiling, as far as classes allow."""
        del budgets
        with self._ledger.lock:
            self._shrink(self.owned_bytes() - self._bound_bytes(), Priority.HIGH)
        return None

    def evict(self, target_bytes: int, priority: Priority, ranking: Ranking) -> Removed:
        """Compress hot vectors of this class while they are over their share of what is left, else drop cold ones."""
        removed, before = Removed(), self.owned_bytes()
        owners = _numbers(n for n, name in self._owners.named() if ranking.may_evict(name, priority))
        while len(owners) and (missing := target_bytes - (before - self.owned_bytes())) > 0:
            hot, cold = self.hot.rows_of(owners), self.cold.rows_of(owners)
            share_bytes = HOT_SHARE * self.owned_bytes()
            if len(hot) and (not len(cold) or len(self.hot) * self._cost(self.hot) > share_bytes):
                gained = self._cost(self.hot) - self._cost(self.cold)
                self._demote(self._oldest_hot(hot, min(STEP_ROWS, -(-missing // max(1, gained)))))
            elif len(cold):
                going = self._order.first(self.cold, cold, min(STEP_ROWS, -(-missing // self._cost(self.cold))))
                self._evict_rows(going, removed)
            else:
                break
        self._forget_when_empty()
        self.counters.evictions += removed.entries
        removed.freed_bytes = before - self.owned_bytes()
        return removed

    def expire(self) -> Removed:
        """Drop what is past its time to live."""
        removed = Removed()
        with self._ledger.lock:
            before, now = self.owned_bytes(), self._now()
            for level in (self.hot, self.cold):
                for row in level.late_rows(now)[::-1]:
                    removed.count(self._owners.name(level.note(row).owner), self._cost(level))
                    self._remove(level, row)
            self._forget_when_empty()
            removed.freed_bytes = before - self.owned_bytes()
        self.counters.expirations += removed.entries
        return removed

    def saved(self, priority: Priority) -> Iterator[KeptEntry]:
        """The vectors of one class for the next life, the last used first."""
        with self._ledger.lock:
            ranking = self._ledger.bounds.ranking
            owners = _numbers(n for n, name in self._owners.named() if ranking.priority(name) is priority)
            keys = [
                (int(used), level.slots.key_at(row))
                for level in (self.hot, self.cold)
                for row, used in _with_use(level, level.rows_of(owners))
            ]
        for _, key in sorted(keys, reverse=True):
            with self._ledger.lock:
                kept = self._kept(key)
            if kept is not None:
                yield kept

    def restore(self, kept: KeptEntry) -> bool:
        """Take a vector of an earlier life; False when it is late, of another embedder or form, or has no room."""
        exact = kept.attachment[1:].decode(errors="replace") == _PLAIN
        level = self.hot if exact else self.cold
        foreign = not exact and kept.attachment[1:] != self._form.name.encode()
        fits = len(kept.stored) == level.slot_bytes and len(kept.key) == KEY_BYTES
        if foreign or not fits or not kept.key.startswith(self._embedder) or kept.seconds_left <= 0:
            return False
        vector = np.frombuffer(kept.stored, dtype=np.float32) if exact else self._form.decoded(kept.stored)
        with self._ledger.lock:
            if not np.isfinite(vector).all() or self._found(kept.key)[0] is not None:
                return False
            self._used += 1
            seconds = min(kept.seconds_left, self._ttl)
            return self._take(kept.key, vector, kept.collection, kept.attachment[0], seconds, rounded=not exact)

    def _kept(self, key: bytes) -> KeptEntry | None:
        level, row = self._found(key)
        if level is None:
            return None
        note, stored, form = level.note(row), level.slots.value_at(row), self._form.name
        if level is self.hot and note.rounded:
            stored = self._form.encoded(np.frombuffer(stored, dtype=np.float32))
        elif level is self.hot:
            form = _PLAIN
        left = note.expires - self._now()
        attachment = bytes([note.uses]) + form.encode()
        return KeptEntry(self._owners.name(note.owner), key, stored, False, left, attachment)  # noqa: FBT003  packed

    def _key(self, text: str) -> bytes:
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES - _EMBEDDER_BYTES).digest()
        return self._embedder + digest

    def _now(self) -> float:
        return self._clock() - self._started

    def _found(self, key: bytes) -> tuple[VectorLevel | None, int]:
        """Where the key's vector lies; one past its time is dropped."""
        for level in (self.hot, self.cold):
            row = level.slots.row(key)
            if row is None:
                continue
            if level.note(row).expires > self._now():
                return level, row
            self._remove(level, row)
            self.counters.expirations += 1
        return None, 0

    def _take(self, key: bytes, vector: _Vector, collection: str, uses: int, seconds: float, *, rounded: bool) -> bool:
        """Admit and add."""
        try:
            self._admit(self._cost(self.hot), collection)
        except (NoRoom, ValueTooLarge):
            self.counters.refused += 1
            return False
        note = Note(self._used, uses, round(self._now() + seconds), self._owners.take(collection), rounded)
        self.hot.add(key, vector.astype(np.float32, copy=False).tobytes(), note)
        self._keep_share()
        self._stay_within(collection)
        return True

    def _promote(self, row: int, vector: _Vector) -> None:
        """Where there is room for the difference; else it stays compressed."""
        key, stored, note = self.cold.remove(row)
        try:
            self._admit(self._cost(self.hot) - self._cost(self.cold), self._owners.name(note.owner))
        except (NoRoom, ValueTooLarge):
            self.cold.add(key, stored, note)
            return
        self.hot.add(key, vector.tobytes(), note)
        self._keep_share()
        self._stay_within(self._owners.name(note.owner))

    def _admit(self, byte_count: int, collection: str) -> None:
        """Raises NoRoom, ValueTooLarge."""
        priority = self._ledger.bounds.ranking.priority(collection)
        bound, owned = self._bound_bytes(), self.owned_bytes()
        if byte_count > bound:
            raise ValueTooLarge(f"{self.name}: {byte_count} bytes never fit into {bound}")
        if owned + byte_count > bound:
            # Not left to the ledger, which evicts half a megabyte at once.
            self._shrink(max(owned + byte_count - bound, bound // OVER_SHARE), priority)
            if self.owned_bytes() + byte_count > bound:
                raise NoRoom(self.name, byte_count, "its bytes are held by what may not be evicted")
        self._ledger.admit(self, byte_count, priority)

    def _shrink(self, byte_count: int, up_to: Priority) -> None:
        if byte_count <= 0:
            return
        goal = self.owned_bytes() - byte_count
        for priority in EVICTABLE[: up_to.rank + 1]:
            self.evict(self.owned_bytes() - goal, priority, self._ledger.bounds.ranking)

    def _stay_within(self, collection: str) -> None:
        """What was added may have begun a page or a table of twice the size: others go for those."""
        priority = self._ledger.bounds.ranking.priority(collection)
        self._shrink(self.owned_bytes() - self._bound_bytes(), priority)

    def _bound_bytes(self) -> int:
        limit = self._ledger.limit(self)
        return self._max_bytes if limit is None else limit

    def _keep_share(self) -> None:
        """Compress what was not used for longest when the hot level is over its share of the bound."""
        if len(self.hot) * self._cost(self.hot) > HOT_SHARE * self._bound_bytes():
            rows = np.arange(len(self.hot))
            self._demote(self._oldest_hot(rows, max(1, min(STEP_ROWS, len(rows) // OVER_SHARE))))

    def _oldest_hot(self, rows: Rows, count: int) -> Rows:
        used = self.hot.used(rows)
        return rows[np.argpartition(used, count - 1)[:count]] if count < len(rows) else rows

    def _demote(self, rows: Rows) -> None:
        moved = [self.hot.remove(row) for row in _last_first(rows)]
        for key, stored, note in moved:
            compressed = self._form.encoded(np.frombuffer(stored, dtype=np.float32))
            self.cold.add(key, compressed, note._replace(rounded=True))

    def _evict_rows(self, rows: Rows, removed: Removed) -> None:
        for row in _last_first(rows):
            key, _, note = self.cold.remove(row)
            removed.count(self._owners.name(note.owner), self._cost(self.cold))
            self._owners.give_back(note.owner)
            self._order.left(key, note)

    def _drop_key(self, key: bytes) -> None:
        level, row = self._found(key)
        if level is not None:
            self._remove(level, row)

    def _drop_owned(self, owners: Iterable[int]) -> None:
        numbers = _numbers(owners)
        for level in (self.hot, self.cold):
            for row in _last_first(level.rows_of(numbers)):
                self._remove(level, row)
        self._forget_when_empty()

    def _forget_when_empty(self) -> None:
        """What is known of those that left is worth its bytes beside others only."""
        if not len(self):
            self._order = self._new_order()

    def _remove(self, level: VectorLevel, row: int) -> None:
        _, _, note = level.remove(row)
        self._owners.give_back(note.owner)

    def _cost(self, level: VectorLevel) -> int:
        return level.slot_bytes + BESIDE_BYTES


class _Owners:
    """Numbers of the collections that vectors came from, as long as there are some."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._held: Counter[int] = Counter()

    def owned_bytes(self) -> int:
        return sum(map(sys.getsizeof, (self._numbers, self._names, self._held))) if self._numbers else 0

    def take(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            unused = next((number for number in range(len(self._names)) if not self._held[number]), len(self._names))
            if unused == len(self._names):
                self._names.append(name)
            self._names[unused] = name
            number = self._numbers[name] = unused
        self._held[number] += 1
        return number

    def give_back(self, number: int) -> None:
        self._held[number] -= 1
        if not self._held[number]:
            del self._held[number], self._numbers[self._names[number]]

    def name(self, number: int) -> str:
        return self._names[number]

    def named(self) -> list[tuple[int, str]]:
        return [(number, name) for name, number in self._numbers.items()]


def _numbers(numbers: Iterable[int]) -> npt.NDArray[np.uint16]:
    return np.fromiter(numbers, dtype=np.uint16)


def _last_first(rows: Rows) -> Iterable[int]:
    """So that the row which takes a removed one's place is never one that is still to go."""
    return np.sort(rows)[::-1].tolist()


def _with_use(level: VectorLevel, rows: Rows) -> Iterable[tuple[int, int]]:
    return zip(rows.tolist(), level.used(rows).tolist(), strict=True)
