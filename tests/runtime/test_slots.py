"""Slots of one size against a dict, and what the kernel holds for them."""

import gc
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from membudget_runtime.errors import SpillDamaged, SpillFailed, SpillUnread
from membudget_runtime.own_memory import Allocator
from membudget_runtime.slots import SlotArena
from membudget_runtime.spill import SpillPlace, SpillStore
from runtime.fakes import MB
from runtime.shrunk_slots import KEY_BYTES, VECTOR_BYTES, key_of, shrunk_to_a_random_tenth, status_bytes


class SlotsAgainstDict(RuleBasedStateMachine):
    """R-E02: whatever is put, dropped, kept, contents are those of a dict; values lie densely, and no page behind."""

    @initialize(slot_bytes=st.sampled_from([1, 100, 2048, 300_000]))
    def _empty(self, slot_bytes: int) -> None:
        self.arena = SlotArena(slot_bytes, KEY_BYTES)
        self.model: dict[bytes, bytes] = {}
        self.most = 40 if slot_bytes > VECTOR_BYTES else 2000

    def _value(self, seed: int) -> bytes:
        return random.Random(seed).randbytes(8).ljust(self.arena.slot_bytes, b".")[: self.arena.slot_bytes]

    @rule(first=st.integers(0, 3000), count=st.integers(1, 1200), seed=st.integers(0, 100))
    def put(self, first: int, count: int, seed: int) -> None:
        """New ones and replaced ones."""
        for number in range(first, first + count):
            if len(self.model) < self.most or key_of(number) in self.model:
                value = self._value(seed + number)
                self.arena.put(key_of(number), value)
                self.model[key_of(number)] = value

    @rule(step=st.integers(1, 7), count=st.integers(1, 400), unknown=st.integers(9000, 9010))
    def remove(self, step: int, count: int, unknown: int) -> None:
        """So many that blocks empty, and one that is not there."""
        for key in sorted(self.model)[::step][:count]:
            assert self.arena.remove(key)
            del self.model[key]
        assert not self.arena.remove(key_of(unknown))

    @rule(seed=st.integers(0, 100), share=st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    def retain(self, seed: int, share: float) -> None:
        """Some at random, named in any order, twice, and with strangers."""
        kept = random.Random(seed).sample(list(self.model), int(share * len(self.model)))
        gone = self.arena.retain([*kept, *kept[:3], key_of(9999)])
        assert gone == len(self.model) - len(kept)
        self.model = {key: self.model[key] for key in kept}

    @invariant()
    def contents_are_equal(self) -> None:
        """Byte for byte, under their keys and row by row."""
        arena = self.arena
        assert len(arena) == len(self.model)
        assert {key: arena.get(key) for key in self.model} == self.model
        assert {arena.key_at(row): arena.value_at(row) for row in range(len(arena))} == self.model
        assert (arena.get(key_of(9999)), key_of(9999) in arena) == (None, False)

    @invariant()
    def no_more_blocks_than_values_need(self) -> None:
        """Without a gap."""
        assert len(self.arena.blocks) == -(-len(self.model) // self.arena.rows_per_block)


SlotsAgainstDict.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestSlotsAgainstDict = SlotsAgainstDict.TestCase


@pytest.mark.parametrize(("key", "value"), [(b"short", bytes(100)), (bytes(8), bytes(99)), (bytes(9), bytes(100))])
def test_another_size_is_refused_and_changes_nothing(key: bytes, value: bytes) -> None:
    """R-E02: it would lie over its neighbour."""
    arena = SlotArena(100, KEY_BYTES)
    with pytest.raises(ValueError, match="in an arena of 8 and 100"):
        arena.put(key, value)
    assert (len(arena), arena.get(key)) == (0, None)


@pytest.mark.parametrize("one_by_one", [False, True], ids=["at once", "one by one"])
def test_a_vector_costs_at_most_75_bytes_beside_itself_and_a_random_tenth_gives_the_rest_back(one_by_one: bool) -> None:
    """R-E02: as the kernel counts; the arena's own figures are the kernel's."""
    count = 40_000
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        seen = process.submit(shrunk_to_a_random_tenth, one_by_one, count).result(timeout=60)
    assert 0 < seen.grown / count - VECTOR_BYTES <= 75
    assert (seen.grown - seen.left) / seen.grown >= 0.88
    assert seen.told == pytest.approx(seen.grown, rel=0.01)
    assert seen.told_left == pytest.approx(seen.left, rel=0.1)


def test_pages_behind_the_last_value_go_back_to_the_kernel() -> None:
    """R-E02: 40 arenas that were nearly a block each hold one value each, on pages of their own size."""
    gc.collect()
    Allocator().trim()  # what others left would go in between
    before = status_bytes("RssAnon")
    arenas = [SlotArena(VECTOR_BYTES, KEY_BYTES) for _ in range(40)]
    rows = arenas[0].rows_per_block - 1
    for arena in arenas:
        arena.put(key_of(0), bytes(VECTOR_BYTES))
    single = status_bytes("RssAnon") - before
    for arena in arenas:
        for number in range(1, rows):
            arena.put(key_of(number), bytes(VECTOR_BYTES))
    full = status_bytes("RssAnon") - before
    for arena in arenas:
        for number in range(1, rows):
            arena.remove(key_of(number))
    left = status_bytes("RssAnon") - before
    assert (single < 3 * MB, full > 39 * MB, left < 3 * MB) == (True, True, True)


def filled(count: int) -> tuple[SlotArena, dict[bytes, bytes]]:
    """An arena, and what is in it."""
    arena, chance = SlotArena(VECTOR_BYTES, KEY_BYTES), random.Random(3)
    model = {key_of(number): chance.randbytes(VECTOR_BYTES) for number in range(count)}
    for key, value in model.items():
        arena.put(key, value)
    return arena, model


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 5000])
def test_a_spill_writes_one_file_holds_nothing_and_comes_back(tmp_path: Path, count: int) -> None:
    """R-E13: full blocks and the last one."""
    store = SpillStore(tmp_path, 64 * MB)
    arena, model = filled(count)
    spilled = arena.spill(store)
    assert (len(arena), arena.blocks, len(list(tmp_path.iterdir()))) == (0, [], int(count > 0))
    back = SlotArena(VECTOR_BYTES, KEY_BYTES)
    back.load(store, spilled)
    assert {key: back.get(key) for key in model} == model
    assert (len(back), store.used_bytes, list(tmp_path.iterdir())) == (count, 0, [])


def test_a_spill_needs_no_memory_of_its_own(tmp_path: Path) -> None:
    """R-E13: written straight from the mapping: the kernel's own peak rises by less than 32 MiB over 80."""
    store, arena = SpillStore(tmp_path, 200 * MB), SlotArena(VECTOR_BYTES, KEY_BYTES)
    for number in range(40_000):
        arena.put(key_of(number), bytes(VECTOR_BYTES))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is what is resident now
    before = status_bytes("VmHWM")
    spilled = arena.spill(store)
    assert status_bytes("VmHWM") - before < 4 * MB
    arena.load(store, spilled)
    assert status_bytes("VmHWM") - before < 32 * MB


def test_a_folder_that_takes_nothing_leaves_everything_in_memory(tmp_path: Path) -> None:
    """R-E13: as if it had not been asked."""
    arena, model = filled(600)
    with pytest.raises(SpillFailed):
        arena.spill(SpillStore(tmp_path, MB))
    assert {key: arena.get(key) for key in model} == model


def test_a_changed_byte_loads_nothing_and_the_arena_can_be_used(tmp_path: Path) -> None:
    """R-E13: never other values than were written; the file goes, its bytes count no more."""
    store = SpillStore(tmp_path, 64 * MB)
    arena, _ = filled(1500)
    spilled = arena.spill(store)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(SpillDamaged):
        arena.load(store, spilled)
    assert (len(arena), store.used_bytes, list(tmp_path.iterdir())) == (0, 0, [])
    arena.put(key_of(1), bytes(VECTOR_BYTES))
    assert arena.get(key_of(1)) == bytes(VECTOR_BYTES)


class BusyStore(SpillStore):
    """Cannot be read for now after so many records: the process has all the files open that it may."""

    records_left: int | None = None

    def read(self, place: SpillPlace) -> bytes:
        """As the store does, while it can."""
        if self.records_left is not None:
            if not self.records_left:
                raise SpillUnread(f"{place.batch.path} cannot be read now")
            self.records_left -= 1
        return super().read(place)


def test_what_cannot_be_read_now_stays_on_disk_and_comes_back_later(tmp_path: Path) -> None:
    """R-E13: out of descriptors in the middle of a load; nothing is lost."""
    store = BusyStore(tmp_path, 64 * MB)
    arena, model = filled(1500)
    spilled = arena.spill(store)
    store.records_left = 3
    with pytest.raises(SpillUnread):
        arena.load(store, spilled)
    assert (len(arena), arena.blocks, len(list(tmp_path.iterdir()))) == (0, [], 1)
    store.records_left = None
    arena.load(store, spilled)
    assert {key: arena.get(key) for key in model} == model
    assert (store.used_bytes, list(tmp_path.iterdir())) == (0, [])


def test_a_scan_in_flight_keeps_the_block_it_reads() -> None:
    """R-E06: dropping it unmaps it only when the last view of it has gone."""
    arena, _ = filled(1)
    view = memoryview(arena.blocks[0].memory)
    expected = bytes(view[:VECTOR_BYTES])
    arena.clear()
    assert (bytes(view[:VECTOR_BYTES]), len(arena)) == (expected, 0)
    view.release()


def test_the_table_comes_down_with_what_it_finds() -> None:
    """R-E03: after most slots were dropped one by one, the rest costs no more than in a table made for it."""
    arena = SlotArena(8, 8)
    for number in range(10_000):
        arena.put(number.to_bytes(8, "little"), bytes(8))
    full = arena.owned_bytes()
    for number in range(9_900):
        assert arena.remove(number.to_bytes(8, "little"))

    assert arena.owned_bytes() < full / 20
    assert all(arena.get(number.to_bytes(8, "little")) == bytes(8) for number in range(9_900, 10_000))
    assert len(arena) == 100
