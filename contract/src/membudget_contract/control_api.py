"""Messages on the control socket: the sidecar asks, the runtime in the engine answers.

Covers: budgets, room, actions, reload, persist, single allocations, report. The transport is HTTP over a Unix socket
with JSON bodies; paths stand beside the messages. Does not carry policies: the sidecar resolves them, the runtime
holds bytes. Neighbours: `sidecar_api` for what people ask the sidecar.

Refusals are a `Problem`: 400 Invalid; 404 NotFound (path), UnknownComponent; 409 IdTaken; 503 NoRoom, OverBaseLimit,
TooManyHeld and OutOfMemory (retriable, with Retry-After); 507 ValueTooLarge (never fits).
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

from msgspec import Meta

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import (
    BASE_LIMIT_BYTES,
    CACHED_QUERIES,
    LOADED_FILES,
    CollectionPlan,
    EffectivePlan,
    Message,
    plan_hash,
)
from membudget_contract.policy import Mode, Priority, Signal
from membudget_contract.profiles import EMBEDDING_BUFFER

REPORT_PATH: Final = "/v1/report"
"""GET -> Report."""
BUDGETS_PATH: Final = "/v1/budgets"
"""PUT Budgets -> Freed."""
ROOM_PATH: Final = "/v1/room"
"""PUT Room -> Accepted."""
FREE_PATH: Final = "/v1/free"
"""POST FreeRequest -> Freed."""
RELOAD_PATH: Final = "/v1/reload"
"""POST ReloadRequest -> Reloaded."""
PERSIST_PATH: Final = "/v1/persist"
"""POST, no body -> Persisted."""
ALLOCATIONS_PATH: Final = "/v1/allocations"
"""POST AllocationRequest -> Granted; GET -> Allocations."""
ALLOCATIONS_RELEASE_PATH: Final = "/v1/allocations/release"
"""POST AllocationRelease -> Released."""
TRACKED_PATH: Final = "/v1/tracked"
"""POST Track -> Tracked; GET -> TrackedList."""
TRACKED_RELEASE_PATH: Final = "/v1/tracked/release"
"""POST TrackRelease -> Released."""

RECENT_SECONDS: Final = 10
"""Over so many past seconds a `RequestReport` has its quantiles."""
LISTED_AT_MOST: Final = 1000
"""Allocations in one list, newest first; `omitted` counts the others."""

AllocationId = Annotated[str, Meta(min_length=1, max_length=200)]
HeldBytes = Annotated[int, Meta(ge=1, le=1 << 44)]
Word = Annotated[str, Meta(max_length=200)]


class Means(enum.StrEnum):
    """How bytes are given back."""

    CLEANUP = "Cleanup"
    SPILL = "Spill"
    EVICT = "Evict"
    COLLECT = "Collect"
    TRIM = "Trim"


class Budgets(Message, frozen=True, kw_only=True):
    """The bounds the runtime holds from now on.

    `live` False is Observe mode: nothing is given back or set otherwise, no room is enforced, and the start-up ceilings
    bound what is admitted from then on. What is held over them stays until it leaves by itself.
    """

    contract: str = CONTRACT_VERSION
    plan_hash: str
    live: bool
    signal: Signal
    total_bytes: int
    soft_entry_bytes: int
    room_margin_bytes: int
    components: dict[str, int]
    collections: tuple[CollectionPlan, ...]
    exclude_collections: tuple[str, ...]
    spill_max_bytes: int
    gc_thresholds: tuple[int, int, int]
    cache_compression: bool
    index_mapped: bool = True
    """False: the index is loaded into anonymous memory, where it fits."""
    base_limit_bytes: int = BASE_LIMIT_BYTES
    """Up to where the process may grow without its index and caches."""
    max_loaded_files: int = LOADED_FILES
    max_cached_queries: int = CACHED_QUERIES
    """Over all collections."""


def budgets_of(plan: EffectivePlan) -> Budgets:
    """The message that asks a runtime to hold a plan."""
    return Budgets(
        plan_hash=plan_hash(plan),
        live=plan.mode is Mode.ENFORCE,
        signal=plan.signal,
        total_bytes=plan.total_bytes,
        soft_entry_bytes=plan.soft_entry_bytes,
        room_margin_bytes=plan.room_margin_bytes,
        components=plan.components,
        collections=plan.collections,
        exclude_collections=plan.exclude_collections,
        spill_max_bytes=plan.spill_max_bytes,
        gc_thresholds=plan.gc_thresholds,
        cache_compression=plan.cache_compression,
        index_mapped=plan.index_mapped,
        base_limit_bytes=plan.base_limit_bytes,
        max_loaded_files=plan.max_loaded_files,
        max_cached_queries=plan.max_cached_queries,
    )


class Room(Message, frozen=True, kw_only=True):
    """How many managed bytes fit, as the sidecar sees it; beside the runtime's own reading: docs/decisions/0002."""

    contract: str = CONTRACT_VERSION
    room_bytes: int


class Accepted(Message, frozen=True, kw_only=True):
    """The message was understood and holds."""

    contract: str = CONTRACT_VERSION


class FreeRequest(Message, frozen=True, kw_only=True):
    """Give back about `target_bytes`; `up_to` is the highest class that may be touched, never Critical."""

    contract: str = CONTRACT_VERSION
    means: Means
    target_bytes: int
    up_to: Priority = Priority.HIGH
    within_seconds: float | None = None
    """A Spill stops after that, with what it has freed; None: when it is done."""


class Freed(Message, frozen=True, kw_only=True):
    """What a request did, in the engine's own bytes; the kernel's figures are the sidecar's to read."""

    contract: str = CONTRACT_VERSION
    owned_before_bytes: int
    owned_after_bytes: int
    entries: int
    candidates: int = 0
    """Entries that the request might have taken when it came: `entries` of them it took."""
    collections: dict[str, int]
    """Bytes by collection."""
    exhausted: bool
    """Nothing is left that this request may touch."""
    problem: str | None = None
    """Why less was done than asked, as a full disk; None when nothing stood in the way."""


class ReloadRequest(Message, frozen=True, kw_only=True):
    """Look again at what is on disk, the engine's index first of all. Asked twice at a time it is done once."""

    contract: str = CONTRACT_VERSION


class ObserverResult(Message, frozen=True, kw_only=True):
    """What one observer of a reload or of a persist made of it."""

    name: str
    ok: bool
    problem: str | None
    """Why it kept what it had; None when nothing stood in the way."""


class Reloaded(Message, frozen=True, kw_only=True):
    """What a reload did; observers that failed kept their old state, the others are reloaded all the same."""

    contract: str = CONTRACT_VERSION
    observers: tuple[ObserverResult, ...]
    changed: bool
    """Something new is in use."""
    problem: str | None
    """The first observer's problem; None when all are reloaded."""


class Persisted(Message, frozen=True, kw_only=True):
    """What is on disk now and would be restored by a next life of the process."""

    contract: str = CONTRACT_VERSION
    entries: int
    written_bytes: int
    problem: str | None
    """Why less was written than is held, as a full disk; None when all was."""


class AllocationRequest(Message, frozen=True, kw_only=True):
    """Ask for leave to allocate. The same id with the same bytes and component again is the same grant."""

    contract: str = CONTRACT_VERSION
    id: AllocationId
    component: str = EMBEDDING_BUFFER
    request_bytes: HeldBytes
    purpose: Word = ""


class Granted(Message, frozen=True, kw_only=True):
    """The bytes are held for this id until it is released or the time is over."""

    contract: str = CONTRACT_VERSION
    id: str
    granted_bytes: int
    expires_in_seconds: int


class AllocationRelease(Message, frozen=True, kw_only=True):
    """The operation has ended; releasing what is not held does nothing."""

    contract: str = CONTRACT_VERSION
    id: AllocationId


class Released(Message, frozen=True, kw_only=True):
    """What was given up; 0 bytes when nothing was held under this id."""

    contract: str = CONTRACT_VERSION
    id: str
    released_bytes: int


class Allocation(Message, frozen=True, kw_only=True):
    """One grant in force."""

    id: str
    component: str
    granted_bytes: int
    purpose: str
    expires_in_seconds: int


class Allocations(Message, frozen=True, kw_only=True):
    """The grants in force, newest first."""

    contract: str = CONTRACT_VERSION
    ceiling_bytes: int
    held_bytes: int
    allocations: tuple[Allocation, ...]
    omitted: int
    """Further ones that are not listed."""


class Track(Message, frozen=True, kw_only=True):
    """Count memory that somebody allocated already. The same id again replaces what was told before."""

    contract: str = CONTRACT_VERSION
    id: AllocationId
    component: str
    tracked_bytes: HeldBytes
    type: Word = ""


class Tracked(Message, frozen=True, kw_only=True):
    """One allocation that is counted in its component until it is released."""

    contract: str = CONTRACT_VERSION
    id: str
    component: str
    tracked_bytes: int
    type: str


class TrackRelease(Message, frozen=True, kw_only=True):
    """The memory was freed; releasing what is not tracked does nothing."""

    contract: str = CONTRACT_VERSION
    id: AllocationId


class TrackedList(Message, frozen=True, kw_only=True):
    """What is tracked, newest first."""

    contract: str = CONTRACT_VERSION
    tracked_bytes: int
    tracked: tuple[Tracked, ...]
    omitted: int
    """Further ones that are not listed."""


class ComponentReport(Message, frozen=True, kw_only=True):
    """One component's bytes. `owned` is anonymous memory, `mapped` resident pages of files; None: not readable."""

    name: str
    owned_bytes: int
    mapped_bytes: int | None
    budget_bytes: int | None
    entries: int
    evictable_bytes: int
    critical_bytes: int
    spilled_bytes: int
    reserved_bytes: int = 0
    """Admitted and not allocated yet: grants, and what is about to be loaded. Not part of `owned_bytes`."""
    tracked_bytes: int = 0
    """The part of `owned_bytes` that is tracked by id."""
    evictions: int = 0
    """Entries evicted since start."""


class CollectionReport(Message, frozen=True, kw_only=True):
    """One collection's bytes in one component."""

    name: str
    component: str
    priority: Priority
    owned_bytes: int
    entries: int


class GcMode(enum.StrEnum):
    """When the engine's garbage collector runs."""

    DEFAULT = "Default"
    """By the plan's thresholds."""
    LATENCY = "Latency"
    """Seldom while requests run, fully while there are none."""
    MEMORY = "Memory"
    """Often: 500/5/5."""


class GcPauses(Message, frozen=True, kw_only=True):
    """How long collections took since the runtime began to time them."""

    count: int
    total_microseconds: int
    mean_microseconds: int
    p99_microseconds: int
    """Of the last 1,000."""
    max_microseconds: int
    last_microseconds: tuple[int, ...]
    """The last ten, newest last."""


class GcReport(Message, frozen=True, kw_only=True):
    """The garbage collector's counters since start, how it is set, and its pauses."""

    collections: int
    collected: int
    mode: GcMode = GcMode.DEFAULT
    thresholds: tuple[int, int, int] | None = None
    """In force now, as the mode makes them of the plan's; None: a runtime that does not tell."""
    frozen: int = 0
    """Objects that no collection looks at."""
    pauses: GcPauses | None = None


class RequestReport(Message, frozen=True, kw_only=True):
    """How long the service's own requests take: the harm an action does shows here first."""

    count: int
    """Since start."""
    p50_microseconds: int
    p99_microseconds: int
    """Of the last RECENT_SECONDS."""


class Report(Message, frozen=True, kw_only=True):
    """Everything the runtime knows of itself, at one moment."""

    contract: str = CONTRACT_VERSION
    pid: int
    managed_bytes: int
    room_bytes: int | None
    """Managed bytes that fit now; None in Observe mode, and while neither the runtime nor the sidecar can tell."""
    plan_hash: str | None
    refused: int
    """Reservations refused since start."""
    evictions: int = 0
    """Entries evicted since start, over all components."""
    allocations_bytes: int = 0
    """Granted by id and not released."""
    tracked_bytes: int = 0
    """Tracked by id; part of the managed bytes."""
    base_bytes: int | None = None
    """Of the process without its index and caches, with what is granted; None: the kernel did not say."""
    base_limit_bytes: int | None = None
    """Above it allocations are refused; None: a runtime that holds no such limit."""
    requests: RequestReport | None = None
    """None when nothing was served in the last RECENT_SECONDS."""
    restored: int = 0
    """Entries of a former life that were taken back at the start."""
    set_aside: int = 0
    """Files of a former life that were damaged, foreign or of a newer version, and are kept aside."""
    components: tuple[ComponentReport, ...]
    collections: tuple[CollectionReport, ...]
    gc: GcReport


class Problem(Message, frozen=True, kw_only=True):
    """An answer that is no success (RFC 9457); `reason` is a CamelCase word for programs."""

    contract: str = CONTRACT_VERSION
    title: str
    status: int
    reason: str
    detail: str
