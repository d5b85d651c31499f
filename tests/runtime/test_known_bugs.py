"""Bugs of comparable code bases, put in at run time: for each, a test of ours must fail."""

import contextlib
import pickle
import random
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from membudget_contract.policy import EVICTABLE, Priority
from membudget_runtime import entry_file, persistence
from membudget_runtime.entry import Entry
from membudget_runtime.entry_file import KeptEntry, Written
from membudget_runtime.errors import SpillDamaged, SpillFailed
from membudget_runtime.ledger import Ledger
from membudget_runtime.replacement import AdaptiveFifo
from membudget_runtime.spill import MAGIC, SpillPlace, SpillStore
from runtime import test_cache, test_ledger


def inverted_weight(patch: pytest.MonkeyPatch) -> None:
    """Known bug 1: High goes first."""
    patch.setattr("membudget_runtime.ledger.EVICTABLE", EVICTABLE[::-1])


def same_score_for_all(patch: pytest.MonkeyPatch) -> None:
    """Known bug 2: every candidate is as good as any other."""
    chance = random.Random(1)

    def pop(order: AdaptiveFifo[str]) -> Entry[str] | None:
        entries = [*order]
        if not entries:
            return None
        entry = chance.choice(entries)
        order.remove(entry)
        return entry

    patch.setattr(AdaptiveFifo, "pop", pop)


def maximum_is_only_a_hint(patch: pytest.MonkeyPatch) -> None:
    """Known bug 18: admission admits everything."""

    def admit(*_arguments: object) -> None:
        return

    patch.setattr(Ledger, "admit", admit)


class OnceOnlyLock:
    """Not re-entrant; who would wait for itself for ever fails after a second instead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        """As a lock does."""
        taken = self._lock.acquire(timeout=1.0) if blocking else self._lock.acquire(blocking=False)
        assert taken or not blocking, "the lock is waited for by the thread that holds it"
        return taken

    def release(self) -> None:
        """As a lock does."""
        self._lock.release()


def lock_taken_twice(patch: pytest.MonkeyPatch) -> None:
    """Known bug 21: a lock that is not re-entrant, and a path that takes it twice."""
    patch.setattr("membudget_runtime.yielding_lock.threading.RLock", OnceOnlyLock)


def spilled_without_a_checksum(patch: pytest.MonkeyPatch) -> None:
    """Known bug 6: what comes back from disk is believed."""

    def unread(_record: bytes) -> int:
        return 0

    patch.setattr("membudget_runtime.spill.zlib.crc32", unread)


def spilled_without_a_bound(patch: pytest.MonkeyPatch) -> None:
    """Known bug 6: the folder takes everything."""
    write = SpillStore.write

    def unbounded(store: SpillStore, records: Sequence[bytes | memoryview]) -> list[SpillPlace]:
        store.max_bytes = 1 << 60
        return write(store, records)

    patch.setattr(SpillStore, "write", unbounded)


def spilled_by_pickle(patch: pytest.MonkeyPatch) -> None:
    """Known bug 6: whoever can write to the folder runs code here."""
    write = SpillStore.write

    def pickling(store: SpillStore, records: Sequence[bytes | memoryview]) -> list[SpillPlace]:
        return write(store, [pickle.dumps(bytes(record)) for record in records])

    patch.setattr(SpillStore, "write", pickling)


def failed_flush_is_a_success(patch: pytest.MonkeyPatch) -> None:
    """Known bug 9: whether it was written or not, all is well."""
    write = entry_file.write_entries

    def hopeful(*arguments: Any) -> Written:
        with contextlib.suppress(OSError):
            return write(*arguments)
        return Written(0, 0, cut=None)

    patch.setattr(persistence, "write_entries", hopeful)


def time_to_persist_is_never_looked_at(patch: pytest.MonkeyPatch) -> None:
    """Known bug 9: the overall time-out is an argument, and nothing else."""
    write = entry_file.write_entries

    def patient(path: Path, entries: Iterable[KeptEntry], now: float, _still_time: Callable[[], bool]) -> Written:
        return write(path, entries, now)

    patch.setattr(persistence, "write_entries", patient)


def priorities() -> None:
    """Low before Medium before High."""
    test_cache.test_low_goes_before_medium_before_high()


def recency() -> None:
    """A smaller ceiling keeps what was used last."""
    test_cache.test_a_smaller_ceiling_keeps_the_most_recently_used()


def bound() -> None:
    """Never a byte over the ceiling."""
    test_cache.test_random_use_leaves_little_dead_and_nobody_is_refused()


def eviction() -> None:
    """A reservation that evicts for room."""
    test_ledger.test_nothing_is_evicted_for_an_incoming_value_of_a_lower_class({})


def checksums() -> None:
    """A byte that changed on disk is damage."""
    with tempfile.TemporaryDirectory() as folder:
        store = SpillStore(Path(folder), 1000)
        (place,) = store.write([b"value"])
        place.batch.path.write_bytes(MAGIC + b"valuE")
        try:
            read = store.read(place)
        except SpillDamaged:
            return
        raise AssertionError(f"{read!r} was read")


def spill_bound() -> None:
    """No more than was said."""
    with tempfile.TemporaryDirectory() as folder:
        store = SpillStore(Path(folder), 100)
        with contextlib.suppress(SpillFailed):
            store.write([bytes(200)])
        assert store.used_bytes <= 100


def plain_records() -> None:
    """A batch is its values, byte by byte."""
    with tempfile.TemporaryDirectory() as folder:
        (place, _) = SpillStore(Path(folder), 1000).write([b"one", b"two"])
        assert place.batch.path.read_bytes() == MAGIC + b"onetwo"


class Persisting:
    """Two entries; the file system fails while they are written, when it is told to."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def saved(self, priority: Priority) -> Iterator[KeptEntry]:
        """Of the highest class alone."""
        for number in range(2 if priority is Priority.CRITICAL else 0):
            if self.fails:
                raise OSError(28, "No space left on device")
            yield KeptEntry("collection", bytes([number]), b"value", packed=False, seconds_left=60.0)

    def restore(self, kept: KeptEntry) -> bool:
        """Nothing is."""
        del kept
        return False


def flush_failure() -> None:
    """What was not written is told."""
    with tempfile.TemporaryDirectory() as folder:
        kept = persistence.Persistence(Path(folder), lambda: 0.0)
        kept.register("cache", Persisting(fails=True))
        assert kept.persist().problem is not None


def persist_time() -> None:
    """What there is no time for is not written, and that is told."""
    with tempfile.TemporaryDirectory() as folder:
        kept = persistence.Persistence(Path(folder), lambda: 0.0)
        kept.register("cache", Persisting(fails=False))
        persisted = kept.persist(lambda: False)
        assert (persisted.entries, persisted.problem is None) == (0, False)


BUGS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = [
    (inverted_weight, priorities),
    (same_score_for_all, recency),
    (maximum_is_only_a_hint, bound),
    (lock_taken_twice, eviction),
    (spilled_without_a_checksum, checksums),
    (spilled_without_a_bound, spill_bound),
    (spilled_by_pickle, plain_records),
    (failed_flush_is_a_success, flush_failure),
    (time_to_persist_is_never_looked_at, persist_time),
]


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Undone before the test ends."""
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.mark.parametrize(("bug", "check"), BUGS, ids=[bug.__name__ for bug, _ in BUGS])
def test_a_known_bug_is_caught(
    patch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None], check: Callable[[], None]
) -> None:
    """R-P07, R-E02, R-E13, R-E14, R-E17: green without the bug, red with it."""
    check()
    bug(patch)
    with pytest.raises(AssertionError):
        check()
