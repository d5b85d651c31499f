"""Messages of the leak detector inside an engine, on its control socket.

Covers: switching it on and off, labelled snapshots, what grew, and the search for reference cycles. Does not cover leak
suspicion from outside, which needs no detector (`sidecar_api`). Off unless asked: tracing allocations costs memory and
time, which every answer states.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import Message

LEAK_DETECTOR_PATH: Final = "/v1/leak-detector"
"""GET -> LeakFindings; PUT LeakWatch -> LeakFindings."""
LEAK_SNAPSHOTS_PATH: Final = "/v1/leak-detector/snapshots"
"""POST SnapshotRequest -> HeapSnapshot. 409 DetectorOff when it is off."""
LEAK_CYCLES_PATH: Final = "/v1/leak-detector/cycles"
"""POST, no body -> CyclesFound. A full collection: the engine stands still meanwhile. On or off."""

Label = Annotated[str, Meta(min_length=1, max_length=100)]


class LeakWatch(Message, frozen=True, kw_only=True):
    """Switch the detector. On when it is on, off when it is off: nothing changes. Off forgets all snapshots."""

    contract: str = CONTRACT_VERSION
    on: bool


class SnapshotRequest(Message, frozen=True, kw_only=True):
    """Note under this label what there is now."""

    contract: str = CONTRACT_VERSION
    label: Label


class HeapSnapshot(Message, frozen=True, kw_only=True):
    """One moment, in figures only."""

    contract: str = CONTRACT_VERSION
    label: str
    after_seconds: float
    """Since the detector was switched on."""
    process_bytes: int | None
    """Unreclaimable memory of the process; None: the kernel did not say."""
    traced_bytes: int
    """Allocated by Python since the detector was switched on and not freed."""
    objects: int
    """That the garbage collector knows and that are not frozen."""


class TypeGrowth(Message, frozen=True, kw_only=True):
    """A type with over 1.5 times the objects of the first snapshot, and at least 100 more."""

    name: str
    first: int
    newest: int


class AllocationSite(Message, frozen=True, kw_only=True):
    """Where memory was allocated that is still held; the innermost of up to three frames last."""

    frames: tuple[str, ...]
    held_bytes: int
    blocks: int


class SiteGrowth(Message, frozen=True, kw_only=True):
    """A site that holds over 1 MiB more than at the first snapshot, to 4 KiB."""

    frames: tuple[str, ...]
    first_bytes: int
    newest_bytes: int


class LeakFindings(Message, frozen=True, kw_only=True):
    """What grew from the first snapshot to the newest, and what is largest in the newest."""

    contract: str = CONTRACT_VERSION
    on: bool
    snapshots: tuple[HeapSnapshot, ...] = ()
    """The first and the newest ones."""
    bytes_per_hour: int | None = None
    """Slope of the process' memory over its readings, one each 10 s; None: fewer than two."""
    peak_bytes: int | None = None
    """Largest reading; None: there is none."""
    types: tuple[TypeGrowth, ...] = ()
    """Most objects gained first."""
    grown_sites: tuple[SiteGrowth, ...] = ()
    """Most bytes gained first."""
    largest_sites: tuple[AllocationSite, ...] = ()
    """Twenty at most."""
    cost_bytes: int = 0
    """What the detector itself holds: tables of traced allocations, snapshots, readings."""
    problem: str | None = None
    """Why allocations are no longer traced, although it is on."""


class ReferenceCycle(Message, frozen=True, kw_only=True):
    """Objects that only held each other, until this search freed them."""

    objects: int
    held_bytes: int
    """Of the objects themselves."""
    types: tuple[str, ...]
    """Commonest first."""
    links: tuple[str, ...]
    """Who refers to whom inside, as `app.Node.parent -> app.Tree`; ten at most."""
    referrers: tuple[str, ...]
    """Types of what referred to it from outside; unreachable too."""


class CyclesFound(Message, frozen=True, kw_only=True):
    """What a full collection found unreachable."""

    contract: str = CONTRACT_VERSION
    unreachable: int
    """Objects, in cycles or held by one."""
    cycles: tuple[ReferenceCycle, ...]
    """Largest first."""
    omitted: int
    """Further ones that are not listed."""
    took_seconds: float
    problem: str | None = None
    """Why not all was looked at."""
