"""What the kernel says of a mapping, on real mappings."""

import ctypes
import mmap
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_engine.index.page_advice import (
    MADV_DONTNEED,
    MADV_POPULATE_READ,
    PAGE_BYTES,
    FileMapping,
    PageRange,
    advise,
    drop_from_page_cache,
    file_mapping_at,
    page_borders,
    resident_bytes,
    resident_pages,
    touch,
)
from page_cache import pages_in_memory

_PAGES = 2048


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 8 MB, several of the largest folios."""
    path = tmp_path / "pages"
    path.write_bytes(b"x" * (_PAGES * PAGE_BYTES))
    return path


@pytest.fixture
def mapping(file: Path) -> Iterator[FileMapping]:
    """The file from its fifth page on, mapped, with no page resident."""
    size, offset = (_PAGES - 4) * PAGE_BYTES, 4 * PAGE_BYTES
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), size, offset=offset) as mapped:
        exported = ctypes.c_char.from_buffer(mapped)
        found = file_mapping_at(ctypes.addressof(exported) + 5000)
        del exported
        assert found is not None
        advise(found.range, MADV_DONTNEED)
        yield found


@given(st.lists(st.tuples(st.integers(0, 2**46), st.integers(1, 2**30)), min_size=1, max_size=5))
def test_page_borders_hold_the_bytes_and_not_a_page_more(parts: list[tuple[int, int]]) -> None:
    """R-E01: of one range of bytes as of many."""
    starts = np.array([start for start, _ in parts], dtype=np.int64)
    ends = starts + np.array([size for _, size in parts], dtype=np.int64)
    borders = [page_borders(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
    assert borders == [*zip(*(side.tolist() for side in page_borders(starts, ends)), strict=True)]
    for (start, size), (first, behind) in zip(parts, borders, strict=True):
        assert (first % PAGE_BYTES, behind % PAGE_BYTES) == (0, 0)
        assert (0 <= start - first < PAGE_BYTES, 0 <= behind - (start + size) < PAGE_BYTES) == (True, True)


def test_the_mapping_around_an_address_is_found_with_its_offset(mapping: FileMapping) -> None:
    """R-E01: proves the mapping from the kernel's figures."""
    assert (mapping.range.size, mapping.offset) == ((_PAGES - 4) * PAGE_BYTES, 4 * PAGE_BYTES)


def test_anonymous_memory_is_no_file_mapping() -> None:
    """R-E01: an index that was loaded instead of mapped is noticed."""
    with mmap.mmap(-1, PAGE_BYTES, flags=mmap.MAP_PRIVATE) as mapped:
        exported = ctypes.c_char.from_buffer(mapped)
        assert file_mapping_at(ctypes.addressof(exported)) is None
        del exported
    assert file_mapping_at(1) is None


def test_populated_pages_are_resident_and_dropped_ones_are_not(mapping: FileMapping) -> None:
    """R-E01: residency follows what really is in the page table."""
    assert resident_bytes(mapping.range) == 0

    advise(mapping.range, MADV_POPULATE_READ)
    assert mapping.range.size == resident_bytes(mapping.range)

    advise(PageRange(mapping.range.start, mapping.range.start + 10 * PAGE_BYTES), MADV_DONTNEED)
    assert resident_pages(mapping.range).tolist() == [False] * 10 + [True] * (_PAGES - 14)


def test_touching_makes_every_page_resident(mapping: FileMapping) -> None:
    """R-E01: for kernels without MADV_POPULATE_READ."""
    touch(mapping.range)

    assert mapping.range.size == resident_bytes(mapping.range)


def test_a_part_of_the_file_leaves_the_page_cache(mapping: FileMapping, file: Path) -> None:
    """R-E01: pages that only left the page table still count into the cgroup."""
    part = PageRange(mapping.range.start, mapping.range.start + 1500 * PAGE_BYTES)
    # Dirty pages do not leave; the builder has synced its files as well.
    subprocess.run(["sync", str(file)], check=True)
    before = int(pages_in_memory(file).sum())

    drop_from_page_cache(file, mapping, part)

    # Folios of up to 512 pages at both ends lie partly outside.
    assert before == _PAGES
    assert _PAGES - 1500 <= int(pages_in_memory(file).sum()) < _PAGES - 400


def test_a_file_that_is_gone_needs_no_dropping(mapping: FileMapping, tmp_path: Path) -> None:
    """R-E01: an older generation may have been removed while it is still served."""
    drop_from_page_cache(tmp_path / "gone", mapping, mapping.range)


def test_a_refused_advice_is_an_error_with_its_number(mapping: FileMapping) -> None:
    """R-E01: the caller falls back on EINVAL only."""
    with pytest.raises(OSError, match="Invalid argument") as caught:
        advise(mapping.range, 9999)

    assert caught.value.errno == 22


def test_a_short_pagemap_is_an_error_not_zero(mapping: FileMapping, tmp_path: Path) -> None:
    """R-E01: unknown is not zero."""
    empty = tmp_path / "pagemap"
    empty.touch()

    with pytest.raises(OSError, match="early"):
        resident_pages(mapping.range, empty)
    with pytest.raises(FileNotFoundError):
        resident_pages(mapping.range, tmp_path / "nowhere")


def test_a_recorded_maps_file_is_read(tmp_path: Path) -> None:
    """R-E01: paths with blanks and without, anonymous ranges, neighbours."""
    maps = tmp_path / "maps"
    maps.write_text(
        "55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]\n"
        "7eff06600000-7eff06800000 r--s 00002000 fe:00 9979633                    /data/my index.faiss\n"
        "7eff06800000-7eff06900000 r--s 00000000 fe:00 9979634                    /data/other (deleted)\n"
    )

    expected = FileMapping(PageRange(0x7EFF06600000, 0x7EFF06800000), 0x2000)
    assert expected == file_mapping_at(0x7EFF067FFFFF, maps)
    assert file_mapping_at(0x55D0C0000000, maps) is None


def test_constants_are_those_of_the_kernel() -> None:
    """R-E01: where Python knows them too, they agree."""
    assert (mmap.MADV_DONTNEED, mmap.PAGESIZE) == (MADV_DONTNEED, PAGE_BYTES)
    assert sys.platform == "linux"
