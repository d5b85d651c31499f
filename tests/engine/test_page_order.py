"""Which parts of a mapping go first; addresses are made up, nothing is mapped."""

import itertools

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from membudget_engine.index.page_advice import PAGE_BYTES, PageRange
from membudget_engine.index.page_order import PageOrder

_BASE = 1 << 30


def _order(page_counts: list[int]) -> tuple[PageOrder, npt.NDArray[np.bool_]]:
    """Parts of so many pages one after the other behind one page of header, all resident."""
    ends = _BASE + PAGE_BYTES + np.cumsum(page_counts, dtype=np.int64) * PAGE_BYTES
    starts = ends - np.array(page_counts, dtype=np.int64) * PAGE_BYTES
    total = sum(page_counts) + 1
    order = PageOrder(starts, ends, PageRange(_BASE, _BASE + total * PAGE_BYTES))
    return order, np.ones(total, dtype=np.bool_)


def _pages(first: int, end: int) -> PageRange:
    return PageRange(_BASE + first * PAGE_BYTES, _BASE + end * PAGE_BYTES)


def test_parts_never_probed_go_before_the_longest_unused() -> None:
    """R-E01: the coldest part only."""
    order, resident = _order([1, 1, 1, 1])
    order.probed(np.array([1, 3]))
    order.probed(np.array([0, -1]))
    order.probed(np.array([3]))

    assert [_pages(3, 4)] == order.coldest(resident, 1)
    assert [_pages(2, 4)] == order.coldest(resident, PAGE_BYTES + 1)
    assert [_pages(1, 4)] == order.coldest(resident, 3 * PAGE_BYTES)
    assert [_pages(1, 5)] == order.coldest(resident, 99 * PAGE_BYTES)


def test_parts_that_are_not_resident_do_not_count() -> None:
    """R-E01: bytes that are not there cannot be given back."""
    order, resident = _order([2, 2, 2])
    resident[1:3] = False

    assert [_pages(3, 5)] == order.coldest(resident, 1)
    resident[:] = False
    assert order.coldest(resident, 1) == []


def test_a_page_belongs_to_the_part_that_holds_its_first_byte() -> None:
    """R-E01: giving back a cold part leaves the pages of its neighbour."""
    starts = np.array([_BASE + 100, _BASE + 5000, 0], dtype=np.int64)
    ends = np.array([_BASE + 5000, _BASE + 9000, 0], dtype=np.int64)
    order = PageOrder(starts, ends, PageRange(_BASE, _BASE + 4 * PAGE_BYTES))
    resident = np.ones(4, dtype=np.bool_)

    order.probed(np.array([1]))

    assert [_pages(1, 2)] == order.coldest(resident, 1)
    assert [_pages(1, 3)] == order.coldest(resident, 99 * PAGE_BYTES)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(-1, 11), min_size=1), max_size=6),
    st.integers(1, 200_000),
)
def test_enough_is_given_and_not_a_part_more(page_counts: list[int], probes: list[list[int]], target: int) -> None:
    """R-E01: at least the target where so much is resident; the header and its centroids stay."""
    order, resident = _order(page_counts)
    for probe in probes:
        order.probed(np.array([part for part in probe if part < len(page_counts)], dtype=np.int64))

    ranges = order.coldest(resident, target)

    given_bytes = sum(pages.size for pages in ranges)
    available = sum(page_counts) * PAGE_BYTES
    assert min(target, available) <= given_bytes <= min(available, target + max(page_counts) * PAGE_BYTES)
    assert all(pages.start >= _BASE + PAGE_BYTES for pages in ranges)
    assert all(left.end < right.start for left, right in itertools.pairwise(ranges))
