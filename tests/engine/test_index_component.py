"""The mapped indexes as the ledger sees them: pages from the kernel, given back when asked."""

from collections.abc import Iterator

import pytest

from membudget_contract.policy import Priority
from membudget_engine.index.generations import Generation
from membudget_engine.index.mapped import MappedIndex
from membudget_engine.index_component import FRESH_SECONDS, IndexComponent
from membudget_runtime.component import Ranking

MB = 1024 * 1024


class _HandClock:
    """Stands still until moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _HandClock:
    """Moved by the test."""
    return _HandClock()


@pytest.fixture
def indexes(flat_generation: Generation, listed_generation: Generation) -> Iterator[list[MappedIndex]]:
    """3 MB flat and 16 MB in lists, all of it resident."""
    opened = [MappedIndex.open(each.directory, each.manifest) for each in (flat_generation, listed_generation)]
    for index in opened:
        index.warm()
    yield opened
    for index in opened:
        index.close()


@pytest.fixture
def component(indexes: list[MappedIndex], clock: _HandClock) -> IndexComponent:
    """Over both, with 700 kB of heap."""
    return IndexComponent(indexes, 700_000, clock)


def test_owned_bytes_are_those_on_the_heap_and_mapped_bytes_the_kernels(
    component: IndexComponent, indexes: list[MappedIndex]
) -> None:
    """R-E10: every component reports its bytes."""
    assert (component.name, component.owned_bytes()) == ("index", 700_000)
    assert component.mapped_bytes() == sum(index.resident_bytes() for index in indexes)
    assert sum(index.mapped_bytes() for index in indexes) == component.mapped_bytes()


def test_the_page_table_is_read_again_after_a_second(
    component: IndexComponent, indexes: list[MappedIndex], clock: _HandClock
) -> None:
    """R-E10: reading it costs time in proportion to the index."""
    before = component.mapped_bytes()
    for index in indexes:
        index.page_out(index.mapped_bytes())
    clock.now += FRESH_SECONDS / 2
    assert before == component.mapped_bytes()

    clock.now += FRESH_SECONDS / 2

    assert component.mapped_bytes() == sum(index.resident_bytes() for index in indexes)


def test_giving_pages_back_stops_at_the_target_and_is_seen_at_once(component: IndexComponent) -> None:
    """R-E14: bytes that left residency, not bytes asked for."""
    before = component.mapped_bytes()
    assert before is not None

    given = component.page_out(5 * MB)

    after = component.mapped_bytes()
    assert after is not None
    assert 5 * MB <= given < 9 * MB
    assert before - after == given


def test_more_than_there_is_gives_all_but_the_centroids(component: IndexComponent) -> None:
    """R-E14: page-out ends when nothing is left."""
    component.page_out(1 << 40)

    left = component.mapped_bytes()

    assert left is not None
    assert left < MB
    assert component.page_out(1 << 40) < MB


def test_unreadable_pages_are_unknown_and_not_zero(component: IndexComponent, indexes: list[MappedIndex]) -> None:
    """R-E10: unknown is never zero; the index that is left still gives pages back."""
    indexes[0].close()

    assert component.mapped_bytes() is None
    assert component.page_out(MB) >= MB


def test_eviction_leaves_the_index_alone(component: IndexComponent) -> None:
    """R-E14: its entries are no cache; only pages go."""
    removed = component.evict(1 << 40, Priority.LOW, Ranking())

    assert (removed.entries, removed.freed_bytes) == (0, 0)
