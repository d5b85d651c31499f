"""Persist and the next life: caches come back by class, in their order, inside their bounds."""

import contextlib
import os
import subprocess
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from membudget_contract.control_api import FreeRequest, Means, Persisted
from membudget_contract.policy import Priority
from membudget_runtime.arena import ALONE_BYTES
from membudget_runtime.cache import BoundedCache
from membudget_runtime.component import Ranking
from membudget_runtime.entry_file import KeptEntry, written_at
from membudget_runtime.errors import SpillUnread
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.persistence import Persistence
from membudget_runtime.replacement import AdaptiveFifo, LeastFrequentlyUsed, LeastRecentlyUsed, Replacement
from membudget_runtime.spill import SpillPlace, SpillStore
from memory_cgroup import require
from runtime.fakes import MB, RANKING, HandClock, ledger_of

COLLECTIONS = ("low", "medium", "high", "critical", "pinned")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 64 kB, really mounted."""
    require(os.geteuid() == 0, "mounting a tmpfs needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def cache_of(
    folder: Path, clock: HandClock, ceiling: int = 8 * MB, policy: type[Replacement[bytes]] = AdaptiveFifo
) -> BoundedCache[bytes]:
    """One life's cache; time to live 100 s."""
    ledger, _ = ledger_of(ceilings={"cache": ceiling}, clock=clock)
    spill = SpillStore(folder / "spill", 8 * MB)
    return BoundedCache("cache", ledger, ttl_seconds=100.0, clock=clock, spill=spill, policy=policy)


def persistence_of(folder: Path, clock: HandClock) -> Persistence:
    """One life's, in the same folder."""
    return Persistence(folder / "persisted", clock)


def next_life(
    folder: Path, clock: HandClock, ceiling: int = 8 * MB, policy: type[Replacement[bytes]] = AdaptiveFifo
) -> tuple[BoundedCache[bytes], Persistence, int]:
    """A new cache over the folder of the former one; how many entries came back."""
    cache, persistence = cache_of(folder, clock, ceiling, policy), persistence_of(folder, clock)
    return cache, persistence, persistence.register("cache", cache)


def fill(
    cache: BoundedCache[bytes], clock: HandClock, count: int = 20, size: int = 3000
) -> dict[tuple[str, bytes], bytes]:
    """Values of every class, every other one compressible."""
    kept: dict[tuple[str, bytes], bytes] = {}
    for number in range(count):
        for collection in COLLECTIONS:
            clock.now += 0.01
            value = (os.urandom(size) if number % 2 else bytes([number]) * size) + collection.encode()
            assert cache.put(b"%d" % number, value, collection)
            kept[collection, b"%d" % number] = value
    return kept


def test_every_entry_of_every_class_comes_back(tmp_path: Path) -> None:
    """R-S05: values in memory and on disk, packed or not; how many, and the bytes of the files, are told."""
    clock = HandClock()
    cache, persistence, restored = next_life(tmp_path, clock)
    kept = fill(cache, clock)
    cache.spill(MB, Priority.LOW, RANKING)
    persisted = persistence.persist()
    size = sum(path.stat().st_size for path in (tmp_path / "persisted").iterdir())
    assert persisted == Persisted(entries=len(kept), written_bytes=size, problem=None)
    assert (restored, cache.spilled_bytes() > 0) == (0, True)

    back, _, count = next_life(tmp_path, clock)
    assert count == len(kept)
    assert {place: back.get(*place) for place in kept} == kept


def test_in_a_smaller_life_the_last_used_of_a_class_stay_and_high_ones_before_low_ones(tmp_path: Path) -> None:
    """R-S05, R-P07: the order of eviction goes on where it was."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock)
    for number in range(100):
        clock.now += 0.01
        cache.put(b"%d" % number, os.urandom(20_000), "high" if number % 2 else "low")
    for number in range(20):
        clock.now += 0.01
        cache.get("high" if number % 2 else "low", b"%d" % number)
    persistence.persist()

    back, _, _ = next_life(tmp_path, clock, ceiling=MB)
    found = [number for number in range(100) if back.get("high" if number % 2 else "low", b"%d" % number)]
    high = [number for number in found if number % 2]
    used_last = list(range(1, 20, 2))
    unused = list(range(21, 100, 2))
    assert high == used_last + unused[len(unused) + len(used_last) - len(high) :]
    assert back.owned_bytes() <= MB
    assert len(high) > 35
    assert len(found) - len(high) < 10


def order_of_eviction(cache: BoundedCache[bytes], priority: Priority) -> list[bytes]:
    """What goes, one entry after the other, until nothing of the class is left."""
    kept, left = stay_longest_first(cache, priority), list[bytes]()
    while cache.evict(1, priority, RANKING).entries:
        still = stay_longest_first(cache, priority)
        left += sorted(set(kept) - set(still))
        kept = still
    return left


def stay_longest_first(cache: BoundedCache[bytes], priority: Priority) -> list[bytes]:
    """The keys of a class as a persist writes them."""
    return [entry.key for entry in cache.saved(priority)]


def unequal(cache: BoundedCache[bytes], clock: HandClock, count: int = 12) -> None:
    """Low entries that each lie alone, a third of them used again; and Medium ones, some of which may not go."""
    for number in range(count):
        clock.now += 0.01
        assert cache.put(b"%02d" % number, os.urandom(ALONE_BYTES + 1), "low")
    for number in range(0, count, 3):
        clock.now += 0.01
        cache.get("low", b"%02d" % number)
    for number in range(2):
        assert cache.put(b"medium %d" % number, os.urandom(100), "medium")
        assert cache.put(b"pinned %d" % number, os.urandom(100), "pinned")


@pytest.mark.parametrize("times", [1, 5, 9])
def test_when_the_time_is_over_the_most_valuable_entries_of_a_class_are_on_disk(tmp_path: Path, times: int) -> None:
    """R-E17, fault 57: those that an eviction would have taken last."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock, policy=LeastRecentlyUsed)
    unequal(cache, clock)
    left = iter([True] * (4 + times))
    told = persistence.persist(lambda: next(left, False))
    expected = order_of_eviction(cache, Priority.LOW)[-times:]

    back, _, count = next_life(tmp_path, clock)
    found = [key for key in expected if back.get("low", key)]
    assert (told.entries, told.problem) == (4 + times, f"cache, class Low: time ran out after {times} entries")
    assert (count, found) == (4 + times, expected)


def test_a_persist_without_time_keeps_what_the_former_wrote_whole(tmp_path: Path) -> None:
    """R-E17: the class it ends in too."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock)
    kept = fill(cache, clock)
    persistence.persist()
    left = iter([True] * 22)
    told = persistence.persist(lambda: next(left, False))
    back, _, count = next_life(tmp_path, clock)
    assert (told.entries, told.problem) == (20, "cache, class High: time ran out after 0 entries")
    assert (count, {key: back.get(*key) for key in kept}) == (100, kept)


class Unread(SpillStore):
    """A store in a process that is out of file descriptors."""

    def read(self, place: SpillPlace) -> bytes:
        """Not now."""
        raise SpillUnread(f"{place.length} bytes")


def test_what_cannot_be_read_from_disk_now_is_told_and_the_rest_persisted(tmp_path: Path) -> None:
    """R-E17, fault 78: values that are missing in the file are no secret."""
    clock = HandClock()
    ledger, _ = ledger_of(ceilings={"cache": 8 * MB}, clock=clock)
    store = Unread(tmp_path / "spill", 8 * MB)
    cache: BoundedCache[bytes] = BoundedCache("cache", ledger, ttl_seconds=100.0, clock=clock, spill=store)
    persistence = persistence_of(tmp_path, clock)
    persistence.register("cache", cache)
    kept = fill(cache, clock)
    spilled = cache.spill(1, Priority.HIGH, RANKING).entries
    told = persistence.persist()
    _, _, count = next_life(tmp_path, clock)
    problem = f"cache, class High: {spilled} values on disk cannot be read now after {20 - spilled} entries"
    assert (told.entries, told.problem, count) == (len(kept) - spilled, problem, len(kept) - spilled)


def test_what_may_not_go_is_written_before_what_may(tmp_path: Path) -> None:
    """R-E17, R-P07: an excluded collection is of a class like any other, and never evicted."""
    clock = HandClock()
    cache, _, _ = next_life(tmp_path, clock)
    unequal(cache, clock)
    assert stay_longest_first(cache, Priority.MEDIUM) == [b"pinned 1", b"pinned 0", b"medium 1", b"medium 0"]


@pytest.mark.parametrize("policy", [AdaptiveFifo, LeastRecentlyUsed, LeastFrequentlyUsed])
def test_the_next_life_has_the_order_of_the_former(tmp_path: Path, policy: type[Replacement[bytes]]) -> None:
    """R-E17, R-P07: what was used stays longest, although nobody has used it in this life."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock, policy=policy)
    unequal(cache, clock)
    former = stay_longest_first(cache, Priority.LOW)
    persistence.persist()
    back, _, _ = next_life(tmp_path, clock, policy=policy)
    assert stay_longest_first(back, Priority.LOW) == former
    assert (former[:4], former[4:]) == ([b"09", b"06", b"03", b"00"], sorted(former[4:], reverse=True))
    assert order_of_eviction(back, Priority.LOW) == former[::-1]


@pytest.mark.parametrize("policy", [AdaptiveFifo, LeastFrequentlyUsed])
def test_the_next_life_knows_how_often_an_entry_was_used(tmp_path: Path, policy: type[Replacement[bytes]]) -> None:
    """R-E17, R-P07: keys that were asked for again and again outlast a scan of keys that never come back.

    In order alone they would stand before the scan and go first.
    """
    clock, count = HandClock(), 500
    cache, persistence, _ = next_life(tmp_path, clock, 2 * MB, policy)
    often = [b"often %d" % number for number in range(count // 5)]
    seldom = [b"seldom %d" % number for number in range(count - len(often))]
    for key in (*often, *seldom):
        cache.put(key, os.urandom(3000), "low")
    for _ in range(3):
        for key in often:
            cache.get("low", key)
    persistence.persist()
    back, _, restored = next_life(tmp_path, clock, 2 * MB, policy)
    for number in range(2 * count):
        back.put(b"scan %d" % number, os.urandom(3000), "low")
    kept = [sum(back.get("low", key) is not None for key in keys) for keys in (often, seldom)]
    assert (restored, kept) == (count, [len(often), 0])


def test_what_expired_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    """R-S05: the time to live goes on between two lives."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock)
    cache.put(b"early", b"value")
    clock.now = 60.0
    cache.put(b"late", b"value")
    persistence.persist()
    clock.now = 120.0
    back, _, count = next_life(tmp_path, clock)
    assert (count, back.get("default", b"late")) == (1, b"value")
    clock.now = 159.0
    assert back.get("default", b"late") == b"value"
    clock.now = 160.0
    assert back.get("default", b"late") is None


@pytest.mark.parametrize("harm", ["torn", "changed", "foreign"])
def test_a_damaged_file_is_set_aside_and_counted_and_the_others_come_back(tmp_path: Path, harm: str) -> None:
    """R-S05: start-up goes on; the next persist writes the class anew."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock)
    fill(cache, clock)
    persistence.persist()
    path = tmp_path / "persisted" / "cache.High"
    content = path.read_bytes()
    path.write_bytes({"torn": content[:-7], "changed": content[:50] + b"?" + content[51:], "foreign": b"?"}[harm])

    back, persistence, count = next_life(tmp_path, clock)
    assert (count, persistence.set_aside, back.get("high", b"1")) == (80, 1, None)
    assert sorted(file.name for file in path.parent.iterdir() if "High" in file.name) == ["cache.High.damaged"]
    assert (persistence.persist().entries, next_life(tmp_path, clock)[2]) == (80, 80)


def test_a_full_disk_costs_the_lowest_classes_first_and_is_told(tmp_path: Path, tiny_disk: Path) -> None:
    """R-S05: what was persisted stays whole; the problem names where it ended."""
    clock = HandClock()
    cache = cache_of(tmp_path, clock)
    persistence = persistence_of(tiny_disk, clock)
    persistence.register("cache", cache)
    for collection in ("low", "critical", "medium", "high"):
        cache.put(b"key", os.urandom(25_000), collection)
    persisted = persistence.persist()
    assert (persisted.entries, persisted.problem) == (2, "cache, class Medium: No space left on device")
    back = cache_of(tmp_path / "next", clock)
    persistence_of(tiny_disk, clock).register("cache", back)
    assert [bool(back.get(name, b"key")) for name in ("critical", "high", "medium", "low")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_value_put_before_the_registration_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    """R-S05: what is newer holds."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock)
    cache.put(b"key", b"old")
    persistence.persist()
    back = cache_of(tmp_path, clock)
    back.put(b"key", b"new")
    assert (persistence_of(tmp_path, clock).register("cache", back), back.get("default", b"key")) == (0, b"new")


class OnlyLow:
    """Of a cache that cannot read its other classes just now."""

    def __init__(self, cache: BoundedCache[bytes]) -> None:
        self._cache = cache

    def saved(self, priority: Priority) -> Iterable[KeptEntry]:
        """Those of Low; of another class none, and why."""
        if priority is not Priority.LOW:
            raise SpillUnread("not now")
        return self._cache.saved(priority)

    def restore(self, kept: KeptEntry) -> bool:
        """As the cache."""
        return self._cache.restore(kept)


def test_of_two_files_that_have_a_key_the_newer_one_holds(tmp_path: Path) -> None:
    """R-E17: a collection was High, and is Low when High is not written anew; what only the older file has is back."""
    clock = HandClock()
    cache, persistence, _ = next_life(tmp_path, clock)
    for key in (b"both", b"older"):
        cache.put(key, b"old", "high")
    persistence.persist()

    clock.now += 1.0
    ledger, _ = ledger_of(ceilings={"cache": MB}, clock=clock)
    ledger.set_bounds(replace(ledger.bounds, ranking=Ranking({"high": Priority.LOW})))
    ranked: BoundedCache[bytes] = BoundedCache("cache", ledger, ttl_seconds=100.0, clock=clock)
    next_persistence = persistence_of(tmp_path, clock)
    next_persistence.register("cache", OnlyLow(ranked))
    ranked.drop("high")
    ranked.put(b"both", b"new", "high")
    told = next_persistence.persist()
    back, _, count = next_life(tmp_path, clock)
    found = [back.get("high", key) for key in (b"both", b"older")]
    assert (told.entries, count, found) == (1, 2, [b"new", b"old"])


def test_the_files_of_one_persist_are_of_one_second(tmp_path: Path) -> None:
    """R-E17: else the next life would take the lowest class for the newest, and back before the others."""
    clock = HandClock()
    cache = cache_of(tmp_path, clock)
    persistence = Persistence(tmp_path / "persisted", clock.tick)
    persistence.register("cache", cache)
    before = clock.now
    persistence.persist()
    files = list((tmp_path / "persisted").iterdir())
    assert (len(files), {written_at(file) for file in files}) == (len(Priority), {before + 1.0})


def test_what_was_cleared_is_not_back_in_the_next_life(tmp_path: Path) -> None:
    """R-E02, R-E17: without a persist after the clear, as of a process that is killed; other names stay."""
    environment = {"MEMBUDGET_TOTAL": "16Gi"}
    for life in range(3):
        with contextlib.closing(MemoryRuntime(tmp_path, environment)) as runtime:
            names = ("semanticCache", "queryCache")
            caches: list[BoundedCache[bytes]] = [runtime.cache(name, ttl_seconds=60.0) for name in names]
            back = [runtime.on_persist(cache.name, cache) for cache in caches]
            if life == 0:
                assert [cache.put(b"key", b"value") for cache in caches] == [True, True]
                assert runtime.persist().entries == 2
            if life == 1:
                assert (back, runtime.clear("semanticCache")) == ([1, 1], 1)
            if life == 2:
                assert back == [0, 1]


def test_one_name_is_persisted_once(tmp_path: Path) -> None:
    """R-S05: two would write over each other."""
    cache, persistence, _ = next_life(tmp_path, HandClock())
    with pytest.raises(ValueError, match="persisted already"):
        persistence.register("cache", cache)


def test_a_runtime_persists_and_restores_beside_its_actions(tmp_path: Path) -> None:
    """R-S05: an eviction after the persist takes nothing from the disk; the next life has it all."""
    with contextlib.closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
        assert runtime.on_persist("semanticCache", cache) == 0
        cache.put(b"key", b"value")
        assert runtime.persist().entries == 1
        runtime.free(FreeRequest(means=Means.EVICT, target_bytes=MB))
        assert len(cache) == 0
    with contextlib.closing(MemoryRuntime(tmp_path, {"MEMBUDGET_TOTAL": "4Gi"})) as runtime:
        cache = runtime.cache("semanticCache", ttl_seconds=60.0)
        assert (runtime.on_persist("semanticCache", cache), cache.get("default", b"key")) == (1, b"value")
