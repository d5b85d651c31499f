"""Objects that only hold each other: which, by what attributes, and held by whom.

Covers: one full collection that keeps what it finds unreachable long enough to describe it, then frees it. Does not
cover what is reachable and should not be (`leak_detector`). The engine stands still meanwhile: a diagnostic call, for a
person who asks. Finalizers run as in any collection; weak references to what is found are dead by then.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, cast

from membudget_contract.leak_detector_api import CyclesFound, ReferenceCycle
from membudget_runtime.interpreter.object_counts import full_name

LOOKED_AT: Final = 100_000
"""Unreachable objects; the search takes about 3 us for each."""
LISTED: Final = 20
LINKS: Final = 10
TYPES: Final = 10

Links = Sequence[Sequence[int]]
"""By object, the places of the objects that it refers to."""


def find_cycles(uninterrupted: Callable[[], AbstractContextManager[None]]) -> CyclesFound:
    """Collect everything and describe the cycles that were found; `uninterrupted` keeps other collections out."""
    started = time.perf_counter()
    with uninterrupted():
        found = _unreachable()
        count = len(found)
        del found[LOOKED_AT:]
        described = _described(found)
        found.clear()
        gc.collect()
    described.sort(key=lambda cycle: cycle.held_bytes, reverse=True)
    return CyclesFound(
        unreachable=count,
        cycles=tuple(described[:LISTED]),
        omitted=max(0, len(described) - LISTED),
        took_seconds=time.perf_counter() - started,
        problem=f"only {LOOKED_AT} of {count} objects were looked at" if count > LOOKED_AT else None,
    )


def _unreachable() -> list[object]:
    """What nobody can reach; what others had put into `gc.garbage` stays there."""
    flags, before = gc.get_debug(), len(gc.garbage)
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
    finally:
        gc.set_debug(flags)
    found: list[object] = gc.garbage[before:]
    del gc.garbage[before:]
    return found


def _described(found: list[object]) -> list[ReferenceCycle]:
    places = {id(thing): place for place, thing in enumerate(found)}
    links = [[places[id(to)] for to in gc.get_referents(thing) if id(to) in places] for thing in found]
    referrers: list[list[int]] = [[] for _ in found]
    for place, targets in enumerate(links):
        for target in targets:
            referrers[target].append(place)
    return [_cycle(found, members, links, referrers) for members in Groups(links)]


def _cycle(found: list[object], members: list[int], links: Links, referrers: Links) -> ReferenceCycle:
    inside = set(members)
    outside = Counter(
        full_name(type(found[place])) for member in members for place in referrers[member] if place not in inside
    )
    said = dict.fromkeys(
        f"{_link(found[member], found[target])} -> {full_name(type(found[target]))}"
        for member in members
        for target in links[member]
        if target in inside
    )
    return ReferenceCycle(
        objects=len(members),
        held_bytes=sum(sys.getsizeof(found[member], 0) for member in members),
        types=tuple(name for name, _ in Counter(full_name(type(found[m])) for m in members).most_common(TYPES)),
        links=tuple(said)[:LINKS],
        referrers=tuple(name for name, _ in outside.most_common(TYPES)),
    )


def _link(holder: object, held: object) -> str:
    """How the holder calls what it holds: an attribute, a key, or only its own type."""
    name = full_name(type(holder))
    for key, value in _attributes(holder):
        if value is held:
            return f"{name}.{key}"
    if type(holder) is dict:
        items = cast("dict[object, object]", holder).items()
        return next((f"{name}[{key!r}]" for key, value in items if value is held and type(key) is str), name)
    return name


def _attributes(holder: object) -> Iterator[tuple[str, object]]:
    try:
        attributes: object = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return
    if type(attributes) is dict:
        yield from cast("dict[str, object]", attributes).items()


class Groups:
    """Groups of objects that reach each other, of two or more or with a link to itself: Tarjan's search in a loop."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._order: dict[int, int] = {}
        self._lowest: dict[int, int] = {}
        self._path: list[int] = []
        self._on_path: set[int] = set()

    def __iter__(self) -> Iterator[list[int]]:
        for root in range(len(self._links)):
            if root not in self._order:
                yield from self._reached_from(root)

    def _reached_from(self, root: int) -> Iterator[list[int]]:
        work = [self._enter(root)]
        while work:
            place, targets = work[-1]
            following = next(targets, None)
            if following is None:
                work.pop()
                if work:
                    self._lower(work[-1][0], self._lowest[place])
                if self._lowest[place] == self._order[place]:
                    yield from self._leave(place)
            elif following not in self._order:
                work.append(self._enter(following))
            elif following in self._on_path:
                self._lower(place, self._order[following])

    def _enter(self, place: int) -> tuple[int, Iterator[int]]:
        self._order[place] = self._lowest[place] = len(self._order)
        self._path.append(place)
        self._on_path.add(place)
        return place, iter(self._links[place])

    def _lower(self, place: int, order: int) -> None:
        self._lowest[place] = min(self._lowest[place], order)

    def _leave(self, place: int) -> Iterator[list[int]]:
        group: list[int] = []
        while not group or group[-1] != place:
            group.append(self._path.pop())
            self._on_path.remove(group[-1])
        if len(group) > 1 or place in self._links[place]:
            yield group
