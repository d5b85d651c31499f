"""The signal taken apart into the kinds of memory that it is the sum of.

Covers: one reading of the kernel's files for a breakdown that a person asked for; the whole is the sum of what was read
here, so that it matches its parts. Does not cover the signal that decides (`sample`) nor owners (`breakdown`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from membudget_contract.breakdown_api import PartKind
from membudget_contract.policy import Signal
from membudget_sidecar.kernel.cgroup_reading import CgroupReading
from membudget_sidecar.kernel.kernel_file import parse_keyed, read_figures
from membudget_sidecar.kernel.process import ProcessReading
from membudget_sidecar.kernel.reading import Absent, Reading, remainder
from membudget_sidecar.kernel.sample import Sample


@dataclass(frozen=True, slots=True)
class Kinds:
    """Bytes by kind, which sum to the whole: anonymous memory always, and what else counts in it."""

    name: str
    source: str
    amounts: Mapping[PartKind, int]

    @property
    def whole(self) -> int:
        """Bytes of all kinds."""
        return sum(self.amounts.values())


def resident_kinds(reading: ProcessReading) -> Kinds | Absent:
    """The resident set: the kernel makes VmRSS of exactly these three."""
    readings = {
        PartKind.ANONYMOUS: reading.anonymous,
        PartKind.FILES: reading.file,
        PartKind.SHARED: reading.shmem,
    }
    return _kinds(Signal.RESIDENT_SET_SIZE, reading.source, readings)


def signal_kinds(sample: Sample) -> Kinds | Absent:
    """The signal of that sample, read again in its kinds where it is the cgroup's."""
    if sample.signal is Signal.RESIDENT_SET_SIZE:
        return resident_kinds(sample.process)
    if isinstance(sample.used.bytes, Absent):
        return sample.used.bytes
    cgroup = sample.cgroup
    if isinstance(cgroup, Absent) or not sample.used.source.startswith(cgroup.source):
        return _held_kinds(sample)
    return _cgroup_kinds(sample.signal, cgroup)


def _held_kinds(sample: Sample) -> Kinds | Absent:
    """Of a process without a cgroup of its own."""
    readings = {
        PartKind.ANONYMOUS: sample.process.anonymous,
        PartKind.SHARED: sample.process.shmem,
        PartKind.KERNEL: sample.process.page_tables,
    }
    return _kinds(sample.signal, sample.used.source, readings)


def _cgroup_kinds(signal: Signal, cgroup: CgroupReading) -> Kinds | Absent:
    stat = read_figures(f"{cgroup.source}/memory.stat", parse_keyed)
    names = ("anon", "shmem", "sock") if cgroup.version == "v2" else ("total_rss", "total_shmem")
    kinds = (PartKind.ANONYMOUS, PartKind.SHARED, PartKind.SOCKETS)
    readings = {kind: stat.get(name) for kind, name in zip(kinds, names, strict=False)}
    known = _kinds(signal, cgroup.source, readings)
    if isinstance(known, Absent):
        return known
    if signal is Signal.UNRECLAIMABLE:
        return _with_rest(known, cgroup.unreclaimable, cgroup.unreclaimable_source, PartKind.KERNEL)
    kernel = remainder(cgroup.unreclaimable, known.whole)
    beside = _kinds(signal, cgroup.source, {**known.amounts, PartKind.KERNEL: kernel})
    if isinstance(beside, Absent):
        return beside
    return _with_rest(beside, cgroup.working_set, f"{cgroup.source} usage - inactive_file", PartKind.FILES)


def _with_rest(known: Kinds, whole: Reading, source: str, rest: PartKind) -> Kinds | Absent:
    """What the whole has beyond the kinds that are known. Counters are updated one by one: they may exceed it."""
    beyond = remainder(whole, known.whole)
    return beyond if isinstance(beyond, Absent) else Kinds(known.name, source, {**known.amounts, rest: beyond})


def _kinds(signal: Signal, source: str, readings: Mapping[PartKind, Reading]) -> Kinds | Absent:
    amounts: dict[PartKind, int] = {}
    for kind, reading in readings.items():
        if isinstance(reading, Absent):
            return reading
        amounts[kind] = reading
    return Kinds(signal.value, source, amounts)
