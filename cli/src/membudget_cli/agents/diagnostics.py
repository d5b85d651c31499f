"""What `get_diagnostics` answers: the sidecar's document in the words that an agent needs.

Pure. Covers: figures in bytes, each None where nothing could be read, with the reason in `unread`. Does not cover
asking for the document (`server`) nor the whole of it: that is `membudget diagnose -o json`. Classes without slots: the
SDK, which makes schemas of them, takes a slot for a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from membudget_contract.breakdown_api import Breakdown, ComponentState, PartKind
from membudget_contract.diagnostics_api import Diagnostics
from membudget_contract.figures_api import Figure
from membudget_contract.sidecar_api import Level, Status

FILE_CACHE: Final = "fileContentCache"
QUERY_CACHE: Final = "queryCache"


@dataclass(frozen=True)
class ProcessMemory:
    """The engine's process, in bytes as the kernel tells."""

    pid: int | None
    resident: int | None
    anonymous: int | None
    mapped_files: int | None
    swap: int | None
    heap: int | None
    """What malloc took with brk; larger blocks are anonymous memory beside it."""
    peak_signal: int | None
    """The most that counted against the budget since the engine started."""
    threads: int | None


@dataclass(frozen=True)
class GarbageCollection:
    """Of the engine's interpreter, since it started."""

    collections: int
    collected_objects: int


@dataclass(frozen=True)
class ComponentMemory:
    """One component against its ceiling, in bytes."""

    name: str
    counted: int | None
    ceiling: int | None
    state: str | None
    """Under, Near or Over."""
    entries: int


@dataclass(frozen=True)
class EngineDiagnostics:
    """One engine at one moment."""

    policy: str | None
    mode: str
    engine: str
    signal: str
    usage: int | None
    budget: int
    container_limit: int | None
    level: str
    seconds_to_limit: float | None
    process: ProcessMemory
    garbage_collection: GarbageCollection | None
    loaded_files: int | None
    """Files held by the cache of file contents; None where the engine has none."""
    cached_queries: int | None
    """Entries of the query cache; None where the engine has none."""
    components: list[ComponentMemory]
    breakdown: dict[str, int]
    """The resident set by owner; the parts sum to it."""
    limits_exceeded: list[str]
    """What is over its figure now, in sentences; empty when nothing is."""
    problems: list[str]
    unread: dict[str, str]
    """Figures that could not be read, with the reason."""


def engine_diagnostics(found: Diagnostics) -> EngineDiagnostics:
    """The document in an agent's words."""
    status = found.status
    entries = {part.name: part.entries for part in status.components}
    return EngineDiagnostics(
        policy=status.policy,
        mode=status.mode.value,
        engine=status.engine,
        signal=status.signal.value,
        usage=status.usage.value,
        budget=status.budget_bytes,
        container_limit=status.limit.value,
        level=status.level.value,
        seconds_to_limit=status.forecast.seconds,
        process=_process(status, found.breakdown),
        garbage_collection=None if status.gc is None else GarbageCollection(status.gc.collections, status.gc.collected),
        loaded_files=entries.get(FILE_CACHE),
        cached_queries=entries.get(QUERY_CACHE),
        components=[
            ComponentMemory(
                name=use.name,
                counted=use.counted_bytes,
                ceiling=use.ceiling_bytes,
                state=None if use.state is None else use.state.value,
                entries=entries.get(use.name, 0),
            )
            for use in found.breakdown.components
        ],
        breakdown={part.name: part.part_bytes for part in found.breakdown.resident.parts},
        limits_exceeded=list(_exceeded(found)),
        problems=list(found.problems),
        unread=dict(_unread(found)),
    )


def _process(status: Status, breakdown: Breakdown) -> ProcessMemory:
    heap = [part.part_bytes for part in breakdown.regions.parts if part.kind is PartKind.HEAP]
    return ProcessMemory(
        pid=status.engine_pid,
        resident=breakdown.resident.figure.value,
        anonymous=status.process.anonymous.value,
        mapped_files=status.process.file.value,
        swap=status.process.swap.value,
        heap=sum(heap) if heap else None,
        peak_signal=status.history_peak_bytes,
        threads=status.process.threads.value,
    )


def _exceeded(found: Diagnostics) -> Iterator[str]:
    status = found.status
    if status.level is not Level.NORMAL:
        yield f"the ladder stands at {status.level.value}: {status.usage.value} of {status.budget_bytes} bytes"
    for use in found.breakdown.components:
        if use.state is ComponentState.OVER:
            yield f"{use.name} holds {use.counted_bytes} bytes, its ceiling is {use.ceiling_bytes}"
    for alert in status.alerts:
        yield f"{alert.name.value}: {alert.detail}"


def _unread(found: Diagnostics) -> Iterator[tuple[str, str]]:
    status = found.status
    figures: dict[str, Figure] = {
        "usage": status.usage,
        "container_limit": status.limit,
        "process.resident": found.breakdown.resident.figure,
        "process.anonymous": status.process.anonymous,
        "process.mapped_files": status.process.file,
        "process.swap": status.process.swap,
        "process.threads": status.process.threads,
    }
    for name, figure in figures.items():
        if figure.absent is not None:
            yield name, figure.absent
    if status.forecast.absent is not None:
        yield "seconds_to_limit", status.forecast.absent
