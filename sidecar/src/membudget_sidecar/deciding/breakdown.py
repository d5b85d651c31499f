"""Whose the bytes are: the kernel's figures divided by what the engine reports (R-S02).

Covers: parts that sum to their whole exactly, components against their ceilings, bytes by collection. Pure. Does not
cover reading (`signal_kinds`, `mappings`) nor exporting (`collector`, `local_breakdown`).

No part is an estimate: it is reported, read, or what is left of a kernel's figure, and says which. What is left over
is a part of its own; where the parts exceed the figure, the excess is a part too, negative and with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from membudget_contract.breakdown_api import (
    BreakdownPart,
    CollectionUse,
    ComponentState,
    ComponentUse,
    PartKind,
    Whole,
)
from membudget_contract.control_api import CollectionReport, ComponentReport
from membudget_contract.figures_api import Figure
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import Priority, Signal
from membudget_contract.profiles import WORKING
from membudget_sidecar.kernel.mappings import RegionBytes, Regions
from membudget_sidecar.kernel.reading import Absent
from membudget_sidecar.kernel.signal_kinds import Kinds

NEAR_PERCENT: Final = 90
"""Of its ceiling: the next admission of a tenth evicts."""

_REPORTED: Final = "engine"
_READ: Final = "kernel"
_REST: Final = "rest"
_PROGRAM: Final = (PartKind.STACK, PartKind.CODE, PartKind.LIBRARIES)
_BESIDE_OWNERS: Final = (PartKind.SHARED, PartKind.KERNEL, PartKind.SOCKETS)
_OVER_ANONYMOUS: Final = (
    "the parts of anonymous memory exceed what the kernel counts: pages of theirs are swapped out or not touched yet, "
    "or the reports are of different moments"
)
_OVER_FILES: Final = (
    "the parts of mapped files exceed what the kernel counts here: pages are charged to another cgroup or inactive, or "
    "the reports are of different moments"
)
_NO_REPORT: Final = "the engine has not reported; what its components own is in here"


def by_owner(
    kinds: Kinds | Absent, components: Sequence[ComponentReport] | None, regions: Regions | Absent, name: str
) -> Whole:
    """A figure of the kernel by owner; `components` None is an engine that has not reported."""
    if isinstance(kinds, Absent):
        return Whole(name=name, figure=Figure(value=None, absent=kinds.reason))
    program: Mapping[PartKind, RegionBytes] = regions.kinds if isinstance(regions, Regions) else {}
    counted = kinds.amounts
    parts = [*_component_parts(components or (), mapped=PartKind.FILES in counted)]
    for kind in _PROGRAM:
        region = program.get(kind)
        if region is not None:
            files = region.resident - region.anonymous if PartKind.FILES in counted else 0
            parts.append(_part(kind.value, kind, region.anonymous + files, _READ))
    parts += [_part(kind.value, kind, counted[kind], _READ) for kind in _BESIDE_OWNERS if kind in counted]
    owned = sum(part.owned_bytes for part in components or ())
    taken = owned + sum(program[kind].anonymous for kind in _PROGRAM if kind in program)
    why = _unmanaged_reason(components, regions)
    parts += _rest(PartKind.UNMANAGED, counted[PartKind.ANONYMOUS] - taken, why, _OVER_ANONYMOUS)
    if PartKind.FILES in counted:
        mapped = sum(part.mapped_bytes or 0 for part in components or ())
        taken = mapped + sum(_file_bytes(program[kind]) for kind in _PROGRAM if kind in program)
        why = _files_reason(components or ())
        parts += _rest(PartKind.FILES, counted[PartKind.FILES] - taken, why, _OVER_FILES)
    figure = Figure(value=kinds.whole, source=kinds.source)
    return Whole(name=name, figure=figure, parts=tuple(parts))


def by_region(regions: Regions | Absent) -> Whole:
    """The resident set by what the kernel calls each mapping; components lie in heap, anonymous memory and files."""
    name = Signal.RESIDENT_SET_SIZE.value
    if isinstance(regions, Absent):
        return Whole(name=name, figure=Figure(value=None, absent=regions.reason))
    parts = [_part(kind.value, kind, region.resident, _READ) for kind, region in regions.kinds.items()]
    figure = Figure(value=regions.resident, source=regions.source)
    return Whole(name=name, figure=figure, parts=tuple(sorted(parts, key=lambda part: -part.part_bytes)))


def component_uses(
    plan: EffectivePlan, components: Sequence[ComponentReport], whole: Whole
) -> tuple[ComponentUse, ...]:
    """Each component against its ceiling; `whole` is the signal by owner, whose rest is what `working` uses."""
    counts_mapped = plan.signal is not Signal.UNRECLAIMABLE
    uses = [_use(plan, part.name, _counted(part, counts_mapped), enforced=True) for part in components]
    return (*uses, _use(plan, WORKING, _working_bytes(whole), enforced=False))


def collection_uses(collections: Iterable[CollectionReport]) -> tuple[CollectionUse, ...]:
    """Bytes by collection over all components, largest first."""
    by_name: dict[str, list[CollectionReport]] = {}
    for report in collections:
        by_name.setdefault(report.name, []).append(report)
    uses = (
        CollectionUse(
            name=name,
            priority=max((each.priority for each in reports), key=list(Priority).index),
            owned_bytes=sum(each.owned_bytes for each in reports),
            entries=sum(each.entries for each in reports),
            components={each.component: each.owned_bytes for each in reports},
        )
        for name, reports in by_name.items()
    )
    return tuple(sorted(uses, key=lambda use: use.owned_bytes, reverse=True))


def _component_parts(components: Iterable[ComponentReport], *, mapped: bool) -> Iterator[BreakdownPart]:
    for part in components:
        yield _part(part.name, PartKind.OWNED, part.owned_bytes, _REPORTED)
        if mapped and part.mapped_bytes:
            yield _part(part.name, PartKind.MAPPED, part.mapped_bytes, _REPORTED)


def _rest(kind: PartKind, left: int, why: str | None, over: str) -> Iterator[BreakdownPart]:
    yield _part(kind.value, kind, max(0, left), _REST, why)
    if left < 0:
        yield _part(f"{PartKind.OVERLAP}: {kind}", PartKind.OVERLAP, left, _REST, over)


def _part(name: str, kind: PartKind, amount: int, source: str, reason: str | None = None) -> BreakdownPart:
    return BreakdownPart(name=name, kind=kind, part_bytes=amount, source=source, reason=reason)


def _file_bytes(region: RegionBytes) -> int:
    return region.resident - region.anonymous


def _unmanaged_reason(components: Sequence[ComponentReport] | None, regions: Regions | Absent) -> str | None:
    if components is None:
        return _NO_REPORT
    return f"with stack and libraries, since {regions.reason}" if isinstance(regions, Absent) else None


def _files_reason(components: Sequence[ComponentReport]) -> str | None:
    silent = [part.name for part in components if part.mapped_bytes is None]
    return f"with the mapped pages of {', '.join(silent)}, which could not be read" if silent else None


def _counted(part: ComponentReport, counts_mapped: bool) -> int | None:
    if not counts_mapped:
        return part.owned_bytes
    return None if part.mapped_bytes is None else part.owned_bytes + part.mapped_bytes


def _working_bytes(whole: Whole) -> int | None:
    if whole.figure.value is None:
        return None
    managed = sum(part.part_bytes for part in whole.parts if part.source == _REPORTED)
    return max(0, whole.figure.value - managed)


def _use(plan: EffectivePlan, name: str, counted: int | None, *, enforced: bool) -> ComponentUse:
    ceiling = plan.components.get(name)
    state = None
    if counted is not None and ceiling is not None:
        if counted > ceiling:
            state = ComponentState.OVER
        else:
            near = counted > 0 and counted * 100 >= ceiling * NEAR_PERCENT
            state = ComponentState.NEAR if near else ComponentState.UNDER
    return ComponentUse(name=name, counted_bytes=counted, ceiling_bytes=ceiling, state=state, enforced=enforced)
