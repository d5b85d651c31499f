import gc
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from membudget_runtime.arena import (
    ALONE_BYTES,
    SEGMENT_BYTES,
    SPARE_SEGMENTS,
    Extent,
    SegmentArena,
    page_bytes,
)
from membudget_runtime.holes import REMEMBERED

lengths = st.one_of(
    st.integers(0, 300),
    st.integers(1500, 9000),
    st.sampled_from([ALONE_BYTES - 1, ALONE_BYTES, ALONE_BYTES + 1, SEGMENT_BYTES, SEGMENT_BYTES + 1]),
)


def stored(arena: SegmentArena, value: bytes) -> Extent:
    """Where the arena put it."""
    extent = Extent()
    arena.store(extent, value)
    return extent


def move_together(arena: SegmentArena) -> None:
    """Step by step, as `BoundedCache` does it."""
    while arena.move_sparsest():
        pass
    arena.give_back_spare()


class ArenaAgainstDict(RuleBasedStateMachine):
    """R-E02: whatever is stored, released and moved, contents and figures stay those of a dict."""

    @initialize()
    def _empty(self) -> None:
        self.arena = SegmentArena()
        self.model: dict[Extent, bytes] = {}

    @rule(length=lengths, count=st.integers(1, 40), fill=st.binary(min_size=8, max_size=8))
    def store(self, length: int, count: int, fill: bytes) -> None:
        """A few values of one length."""
        for _ in range(count):
            value = (fill * (length // 8 + 1))[:length]
            before = self.arena.held_bytes
            self.model[stored(self.arena, value)] = value
            assert self.arena.held_bytes - before <= page_bytes(length)

    @rule(length=st.integers(5000, 9000))
    def fill(self, length: int) -> None:
        """Two segments and more, so that one is not open and can be moved."""
        for number in range(2 * SEGMENT_BYTES // length + 1):
            value = number.to_bytes(2) * (length // 2)
            self.model[stored(self.arena, value)] = value

    @precondition(lambda self: self.model)
    @rule(seed=st.integers(0, 2**16), share=st.sampled_from([0.05, 0.5, 0.95, 1.0]))
    def release(self, seed: int, share: float) -> None:
        """Some at random."""
        chosen = random.Random(seed).sample(list(self.model), max(1, int(len(self.model) * share)))
        for extent in chosen:
            self.arena.release(extent)
            del self.model[extent]

    @rule()
    def move_together(self) -> None:
        """As far as it pays, and nothing stays spare: what a cache does before it is trimmed."""
        move_together(self.arena)
        assert self.arena.resident_bytes == self.arena.held_bytes

    @rule()
    def move_sparsest(self) -> None:
        """One step of a compaction."""
        self.arena.move_sparsest()

    @rule()
    def give_back_spare(self) -> None:
        """What idle engines are asked for."""
        self.arena.give_back_spare()

    @rule()
    def clear(self) -> None:
        """All at once."""
        self.arena.clear()
        self.model.clear()

    @invariant()
    def contents_are_equal(self) -> None:
        """Byte for byte."""
        assert {extent: self.arena.read(extent) for extent in self.model} == self.model

    @invariant()
    def figures_agree(self) -> None:
        """Exact where they can be, bounded where they cannot."""
        arena, live = self.arena, sum(map(len, self.model.values()))
        spare = arena.resident_bytes - arena.held_bytes
        assert arena.live_bytes == live
        assert live <= arena.held_bytes <= arena.resident_bytes
        assert spare <= (SPARE_SEGMENTS + 1) * SEGMENT_BYTES
        assert self.model or arena.resident_bytes == 0


ArenaAgainstDict.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestArenaAgainstDict = ArenaAgainstDict.TestCase


def test_compaction_gives_back_all_but_a_seventh_around_random_survivors() -> None:
    """R-E02: 10 % of 2 kB values survive at random, which keeps nearly every heap page alive elsewhere."""
    arena, chance = SegmentArena(), random.Random(1)
    extents = [stored(arena, bytes(2048)) for _ in range(20_000)]
    for extent in extents:
        if chance.random() > 0.1:
            arena.release(extent)
    before = arena.resident_bytes / arena.live_bytes
    move_together(arena)
    assert (before > 5, arena.resident_bytes / arena.live_bytes < 1.15) == (True, True)


def test_a_full_arena_uses_the_pages_of_what_left_before_it_maps_more() -> None:
    """R-E02: a cache that evicts a segment's worth at a time stays at its bound to the page."""
    arena, batch = SegmentArena(), SEGMENT_BYTES // 2048
    extents = [stored(arena, bytes(2048)) for _ in range(8 * batch)]
    full = arena.resident_bytes
    for start in range(0, 8 * batch, batch):
        for extent in extents[start : start + batch]:
            arena.release(extent)
        assert arena.resident_bytes == full
        for _ in range(batch):
            stored(arena, bytes(2048))
        assert arena.resident_bytes == full


def test_released_values_leave_nothing_on_the_heap() -> None:
    """R-E02: twenty values rewritten over and over beside some that stay: only the extents of live ones are left."""
    arena = SegmentArena()
    before = extents_on_the_heap()
    hot = [stored(arena, bytes(10)) for _ in range(20)]
    stay: list[Extent] = []
    for turn in range(100_000):
        arena.release(hot[turn % 20])
        hot[turn % 20] = stored(arena, bytes(10))
        if turn % 5000 == 0:
            stay.append(stored(arena, bytes(10)))
    assert extents_on_the_heap() - before == len(hot) + len(stay)


def extents_on_the_heap() -> int:
    """Of all arenas."""
    return sum(isinstance(thing, Extent) for thing in gc.get_objects())


def test_a_value_takes_the_place_of_a_released_one_of_its_length() -> None:
    """R-E02: full of values of one length, an arena neither maps nor moves for the next one."""
    arena = SegmentArena()
    extents = [stored(arena, bytes([number % 251]) * 2048) for number in range(1000)]
    held = arena.held_bytes
    left = [(extent.segment, extent.offset) for extent in extents[::7]]
    for extent in extents[::7]:
        arena.release(extent)
    assert (arena.needed_bytes(2048), arena.needed_bytes(2047)) == (0, page_bytes(2047))
    came = [stored(arena, bytes([number]) * 2048) for number in range(len(left))]
    assert sorted((id(extent.segment), extent.offset) for extent in came) == sorted((id(at), by) for at, by in left)
    assert (arena.held_bytes, arena.needed_bytes(2048)) == (held, page_bytes(2048))
    assert [arena.read(extent) for extent in came] == [bytes([number]) * 2048 for number in range(len(left))]


def test_a_value_that_comes_back_does_not_lie_where_it_lay() -> None:
    """R-E02: a look-up that takes no lock tells by the place whether what it read was still the value."""
    arena = SegmentArena()
    extents = [stored(arena, bytes(2048)) for _ in range(10)]
    place = (extents[3].segment, extents[3].offset)
    arena.release(extents[3])
    arena.store_again(extents[3], bytes(2048))
    assert (extents[3].segment, extents[3].offset) != place
    assert arena.needed_bytes(2048) == 0


def test_places_of_many_lengths_are_remembered_up_to_a_bound() -> None:
    """R-E02: what is forgotten is moved together later; a place in a segment that went is no place."""
    arena = SegmentArena()
    extents = [stored(arena, bytes(1 + number)) for number in range(3 * REMEMBERED)]
    for extent in extents[:-1]:
        arena.release(extent)
    remembered = [length for length in range(1, 3 * REMEMBERED) if not arena.needed_bytes(length)]
    assert (len(remembered) <= REMEMBERED, remembered[-1]) == (True, 3 * REMEMBERED - 1)
    arena.release(extents[-1])
    assert [length for length in range(1, 3 * REMEMBERED) if not arena.needed_bytes(length)] == []


def test_a_place_in_a_segment_that_went_is_no_place() -> None:
    """R-E02: its mapping is another segment's by now, or the kernel's."""
    arena, many = SegmentArena(), SEGMENT_BYTES // 2048
    extents = [stored(arena, bytes(2048)) for _ in range(3 * many)]
    for extent in extents[: many - 1]:
        arena.release(extent)
    assert arena.needed_bytes(2048) == 0
    arena.release(extents[many - 1])
    assert arena.needed_bytes(2048) == page_bytes(2048)
    came = [stored(arena, bytes([number % 251]) * 2048) for number in range(many)]
    assert [arena.read(extent) for extent in came] == [bytes([number % 251]) * 2048 for number in range(many)]
    assert {arena.read(extent) for extent in extents[many:]} == {bytes(2048)}
