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


def test_no_part_is_not_taken_for_the_last() -> None:
    """R-E01: -1 is FAISS's word for no list, and numpy's for the last."""
    order, resident = _order([1, 1, 1])
    order.probed(np.array([0, 1, -1]))

    assert [_pages(3, 4)] == order.coldest(resident, 1)


def test_parts_that_are_not_resident_do_not_count() -> None:
    """R-E01: bytes that are not there cannot be given back."""
    order, resident = _order([2, 2, 2])
    resident[1:3] = False

    assert [_pages(3, 5)] == order.coldest(resident, 1)
    resident[:] = False
    assert order.coldest(resident, 1) == []


def _laid_out(sizes: list[int], first_byte: int = 100) -> PageOrder:
    """Parts of so many bytes one after the other; an empty one has no address."""
    ends = _BASE + first_byte + np.cumsum(sizes, dtype=np.int64)
    starts = ends - np.array(sizes, dtype=np.int64)
    there = np.array(sizes) > 0
    pages = -(-(first_byte + sum(sizes)) // PAGE_BYTES)
    return PageOrder(starts * there, ends * there, PageRange(_BASE, _BASE + pages * PAGE_BYTES))


def test_a_page_goes_only_when_every_part_on_it_goes() -> None:
    """R-E01: one page missing at the edge of a hot part is a read from disk, and the read-ahead with it."""
    order = _laid_out([2 * PAGE_BYTES, 2 * PAGE_BYTES, 0, 4 * PAGE_BYTES])
    resident = np.ones(9, dtype=np.bool_)
    order.probed(np.array([1]))

    assert [_pages(1, 2)] == order.coldest(resident, 1)
    assert [_pages(1, 2), _pages(5, 8)] == order.coldest(resident, 2 * PAGE_BYTES)
    assert [_pages(1, 8)] == order.coldest(resident, 99 * PAGE_BYTES)


def test_a_part_within_one_page_keeps_it_or_goes_with_its_neighbours() -> None:
    """R-E01: also lists shorter than a page are hot or cold."""
    order = _laid_out([2 * PAGE_BYTES, 50, 2 * PAGE_BYTES])
    resident = np.ones(5, dtype=np.bool_)

    assert [_pages(1, 4)] == order.coldest(resident, 99 * PAGE_BYTES)
    order.probed(np.array([1]))
    assert [_pages(1, 2), _pages(3, 4)] == order.coldest(resident, 2 * PAGE_BYTES)


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


@given(
    st.lists(st.integers(0, 20_000), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(0, 11), min_size=1), max_size=6),
    st.integers(1, 200_000),
)
def test_parts_of_any_size_go_whole_coldest_first_and_touch_no_page_of_those_that_stay(
    sizes: list[int], probes: list[list[int]], target: int
) -> None:
    """R-E01: held against every part's own pages, counted one by one."""
    order = _laid_out(sizes)
    ticks = [-1] * len(sizes)
    for tick, probe in enumerate(probes):
        parts = [part for part in probe if part < len(sizes)]
        order.probed(np.array(parts, dtype=np.int64))
        for part in parts:
            ticks[part] = tick
    ends = [100 + end for end in itertools.accumulate(sizes)]
    whole = [
        set(range(-(-(end - size) // PAGE_BYTES), end // PAGE_BYTES)) for end, size in zip(ends, sizes, strict=True)
    ]
    touched = [
        set(range((end - size) // PAGE_BYTES, -(-end // PAGE_BYTES))) if size else set[int]()
        for end, size in zip(ends, sizes, strict=True)
    ]

    ranges = order.coldest(np.ones(-(-ends[-1] // PAGE_BYTES), dtype=np.bool_), target)

    given_pages = {
        page
        for pages in ranges
        for page in range((pages.start - _BASE) // PAGE_BYTES, (pages.end - _BASE) // PAGE_BYTES)
    }
    went = [part for part, pages in enumerate(touched) if pages & given_pages]
    stayed = [part for part, pages in enumerate(whole) if pages and part not in went]
    assert all(whole[part] <= given_pages for part in went)
    assert max((ticks[part] for part in went), default=-1) <= min((ticks[part] for part in stayed), default=99)
    available = sum(len(pages) for pages in whole) * PAGE_BYTES
    assert len(given_pages) * PAGE_BYTES >= min(target, available)
    assert 0 not in given_pages
