"""A cache's books, made anew from what it holds: each entry, each segment, each place that is free between values."""

# pyright: reportPrivateUsage=false

import sys
from collections.abc import Hashable, Iterator
from itertools import pairwise
from typing import TypeVar

from membudget_runtime.arena import Extent, Segment, SegmentArena, page_bytes
from membudget_runtime.cache import BoundedCache
from membudget_runtime.entry import SPILLED_BYTES, Entry
from membudget_runtime.kept_entries import KeptEntries

Key = TypeVar("Key", bound=Hashable)


def wrong_in(cache: BoundedCache[Key]) -> list[str]:
    """What the books say otherwise, in words; nothing when they are right."""
    kept = cache._kept
    return [*_wrong_entries(kept), *_wrong_places(kept.arena, _entries(kept))]


def _entries(kept: KeptEntries[Key]) -> list[Entry[Key]]:
    dicts = (entries for table in kept.tables.values() for entries in (table.entries, *table.hidden))
    return [entry for entries in dicts for entry in entries.values()]


def _wrong_entries(kept: KeptEntries[Key]) -> Iterator[str]:
    entries, orders = _entries(kept), set(kept.orders._orders.values())
    on_disk = [entry.spilled.length for entry in entries if entry.spilled is not None]
    dicts = [entries for table in kept.tables.values() for entries in (table.entries, *table.hidden)]
    yield from _differing(
        count=(kept.count, len(entries)),
        ordered=({*entries}, {entry for order in orders for entry in order}),
        heap=(kept.heap_bytes, sum(map(_heap_bytes, [kept] * len(entries), entries))),
        tables=(kept.tables_bytes, sum(map(sys.getsizeof, dicts)) + sum(order.extra_bytes() for order in orders)),
        disk=(kept.spilled_bytes, sum(on_disk)),
        owned=(kept.owned_bytes() if not entries else 0, 0),
        in_one_place=([entry.key for entry in entries if (entry.segment is None) == (entry.spilled is None)], []),
    )
    for table in kept.tables.values():
        of_it = [entry for entry in entries if entry.collection == table.name]
        held = sum(_heap_bytes(kept, entry) + _memory_bytes(entry) for entry in of_it)
        yield from _differing(of_collection=(table.byte_count, held), order=(table.order, kept.orders.of(table.name)))


def _wrong_places(arena: SegmentArena, entries: list[Entry[Key]]) -> Iterator[str]:
    places: dict[Segment, list[tuple[int, int]]] = {segment: [] for segment in arena._segments}
    values: list[Extent] = [entry for entry in entries if entry.segment is not None]
    for value in values:
        assert value.segment is not None
        places[value.segment].append((value.offset, value.offset + value.length))
    live = {segment: (len(taken), sum(end - start for start, end in taken)) for segment, taken in places.items()}
    for length, holes in arena._holes._places.items():
        for segment, start in holes:
            places[segment].append((start, start + length))
    yield from _differing(
        live=(arena.live_bytes, sum(value.length for value in values)),
        held=(arena.held_bytes, sum(page_bytes(segment.used) for segment in places)),
        resident=(arena.resident_bytes, sum(segment.touched for segment in (*places, *arena._spare))),
        segments=({segment: (segment.values, segment.live) for segment in places}, live),
    )
    for segment, taken in places.items():
        ordered = sorted(taken)
        if any(later[0] < earlier[1] for earlier, later in pairwise(ordered)):
            yield f"values or holes lie over each other: {ordered}"
        if ordered and not max(end for _, end in ordered) <= segment.used <= segment.touched <= segment.size:
            yield f"a segment of {segment.size} used to {segment.used} has {ordered}"


def _heap_bytes(kept: KeptEntries[Key], entry: Entry[Key]) -> int:
    return kept.heap_bytes_of(entry.key) + (SPILLED_BYTES if entry.spilled is not None else 0)


def _memory_bytes(entry: Entry[Key]) -> int:
    return 0 if entry.segment is None else entry.length


def _differing(**figures: tuple[object, object]) -> Iterator[str]:
    for name, (told, counted) in figures.items():
        if told != counted:
            yield f"{name}: {told} told, {counted} counted"
