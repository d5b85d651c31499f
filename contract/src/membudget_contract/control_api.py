"""Messages on the control socket: the sidecar asks, the runtime in the engine answers.

Covers: budgets, room, actions, report. The transport is HTTP over a Unix socket with JSON bodies; paths stand
beside the messages. Does not carry policies: the sidecar resolves them, the runtime holds bytes. Neighbours:
`sidecar_api` for what people ask the sidecar.
"""

from __future__ import annotations

import enum
from typing import Final

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import CollectionPlan, EffectivePlan, Message, plan_hash
from membudget_contract.policy import Mode, Priority, Signal

REPORT_PATH: Final = "/v1/report"
"""GET -> Report."""
BUDGETS_PATH: Final = "/v1/budgets"
"""PUT Budgets -> Freed."""
ROOM_PATH: Final = "/v1/room"
"""PUT Room -> Accepted."""
FREE_PATH: Final = "/v1/free"
"""POST FreeRequest -> Freed."""


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


class Freed(Message, frozen=True, kw_only=True):
    """What a request did, in the engine's own bytes; the kernel's figures are the sidecar's to read."""

    contract: str = CONTRACT_VERSION
    owned_before_bytes: int
    owned_after_bytes: int
    entries: int
    collections: dict[str, int]
    """Bytes by collection."""
    exhausted: bool
    """Nothing is left that this request may touch."""
    problem: str | None = None
    """Why less was done than asked, as a full disk; None when nothing stood in the way."""


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


class CollectionReport(Message, frozen=True, kw_only=True):
    """One collection's bytes in one component."""

    name: str
    component: str
    priority: Priority
    owned_bytes: int
    entries: int


class GcReport(Message, frozen=True, kw_only=True):
    """The garbage collector's counters since start."""

    collections: int
    collected: int


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
