"""Messages on the sidecar's local API: whose the bytes are (R-S02).

Covers: a whole with parts that sum to it exactly, components against their ceilings, bytes by collection. Does not
make them: the sidecar's `breakdown` does.
"""

from __future__ import annotations

import enum

from membudget_contract import CONTRACT_VERSION
from membudget_contract.figures_api import Figure
from membudget_contract.plan import Message
from membudget_contract.policy import Priority


class PartKind(enum.StrEnum):
    """What a part consists of."""

    OWNED = "Owned"
    """Anonymous memory of one component, as the engine reports it."""
    MAPPED = "Mapped"
    """Resident pages of one component's mapped files, as the engine reports them."""
    CODE = "Code"
    """The program itself: of an engine in Python, the interpreter."""
    LIBRARIES = "Libraries"
    STACK = "Stack"
    """Of the main thread; those of the others are anonymous memory like any other."""
    HEAP = "Heap"
    ANONYMOUS = "Anonymous"
    FILES = "Files"
    """Pages of mapped files that no component names."""
    SHARED = "Shared"
    KERNEL = "Kernel"
    """Page tables, stacks and tables that the kernel keeps for the container, or for the process alone."""
    SOCKETS = "Sockets"
    UNMANAGED = "Unmanaged"
    """Anonymous memory that nobody accounts for: the interpreter's objects, requests under way, a leak."""
    OVERLAP = "Overlap"
    """By how much the parts exceed the whole, as a negative figure, so that they sum to it all the same."""


class BreakdownPart(Message, frozen=True, kw_only=True):
    """One part of a whole. `name` is the component's where it is one's, otherwise the kind's."""

    name: str
    kind: PartKind
    part_bytes: int
    source: str
    """`engine`: its report; `kernel`: read there; `rest`: what is left of the kernel's figure."""
    reason: str | None = None
    """Why it is what it is, where that needs saying."""


class Whole(Message, frozen=True, kw_only=True):
    """A figure and its parts, which sum to it exactly; without the figure no parts, and why."""

    name: str
    figure: Figure
    parts: tuple[BreakdownPart, ...] = ()


class ComponentState(enum.StrEnum):
    """Where a component is against its ceiling; from 90 % of it on it is near."""

    UNDER = "Under"
    NEAR = "Near"
    OVER = "Over"


class ComponentUse(Message, frozen=True, kw_only=True):
    """One component against its ceiling."""

    name: str
    counted_bytes: int | None
    """What counts against the ceiling under the signal in force; None where it is not known."""
    ceiling_bytes: int | None
    state: ComponentState | None
    """None without a ceiling, or while what counts is not known."""
    enforced: bool
    """`working` is measured, not enforced."""


class CollectionUse(Message, frozen=True, kw_only=True):
    """One collection over all components, largest first in a list."""

    name: str
    priority: Priority
    owned_bytes: int
    entries: int
    components: dict[str, int]
    """Bytes by component."""


class Breakdown(Message, frozen=True, kw_only=True):
    """Whose the bytes are, at one moment. Read for this answer alone: it walks the process' mappings."""

    contract: str = CONTRACT_VERSION
    at: float
    signal: Whole
    """What is held against the budget, by owner."""
    resident: Whole
    """The resident set, by owner."""
    regions: Whole
    """The resident set again, by what the kernel calls each mapping."""
    proportional: Figure
    """Shared pages divided by their users."""
    components: tuple[ComponentUse, ...]
    collections: tuple[CollectionUse, ...]
