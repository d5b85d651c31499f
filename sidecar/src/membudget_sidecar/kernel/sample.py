"""One sample: what the kernel said at one moment, and the one figure of it that is held against the budget.

Covers the choice of the signal's bytes and the distance to the container's limit. Does not cover reading
(`process`, `cgroup`), keeping (`history`) nor deciding (`ladder`).
"""

from dataclasses import dataclass
from typing import Final

from membudget_contract.policy import Signal
from membudget_sidecar.kernel.cgroup import MemoryCgroup
from membudget_sidecar.kernel.cgroup_reading import WORKING_SET_RULE, CgroupReading
from membudget_sidecar.kernel.process import HELD, Process, ProcessReading
from membudget_sidecar.kernel.reading import Absent, Fraction, Reading, SignalReading, remainder, total

SHARED: Final = Absent("cgroup shared with the sidecar")
"""Its figures hold the sidecar's bytes, and those of whatever else was started in it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one moment; `taken_at` in seconds of the monotonic clock."""

    taken_at: float
    signal: Signal
    used: SignalReading
    process: ProcessReading
    cgroup: CgroupReading | Absent

    @property
    def limit(self) -> Reading:
        """The container's live limit in bytes; absent without one."""
        return self.cgroup if isinstance(self.cgroup, Absent) else self.cgroup.limit

    @property
    def available(self) -> Reading:
        """Bytes between the signal and the container's limit, not under 0; absent when one of them is."""
        return remainder(self.limit, self.used.bytes)

    @property
    def limit_percent(self) -> Fraction:
        """The signal in percent of the container's limit; absent when one of them is."""
        limit, used = self.limit, self.used.bytes
        if isinstance(limit, Absent):
            return limit
        if isinstance(used, Absent):
            return used
        return 100 * used / limit if limit else Absent("the limit is 0 bytes")


@dataclass(frozen=True, slots=True)
class QuickReading:
    """What the ladder needs of one moment, and no more."""

    used: SignalReading
    limit: Reading


def take_sample(taken_at: float, signal: Signal, process: Process, cgroup: MemoryCgroup | Absent) -> Sample:
    """Reads process and cgroup once; what cannot be read is absent in the sample."""
    process_reading = process.read()
    cgroup_reading = cgroup if isinstance(cgroup, Absent) else cgroup.read()
    used = signal_bytes(signal, process_reading, _own(cgroup) or cgroup_reading)
    return Sample(taken_at, signal, used, process_reading, cgroup_reading)


def read_quickly(kind: Signal, process: Process, cgroup: MemoryCgroup | Absent) -> QuickReading:
    """Signal and limit of `take_sample` alone: what ten looks a second can afford."""
    limit = cgroup if isinstance(cgroup, Absent) else cgroup.read_limit()
    return QuickReading(read_signal(kind, process, cgroup), limit)


def read_signal(kind: Signal, process: Process, cgroup: MemoryCgroup | Absent) -> SignalReading:
    """The signal of `take_sample` alone, from no more files than it needs."""
    if kind is Signal.RESIDENT_SET_SIZE:
        return SignalReading(process.resident_bytes(), process.resident_source)
    if isinstance(cgroup, Absent) or cgroup.shared:
        absence = cgroup if isinstance(cgroup, Absent) else SHARED
        return _working_set_without(absence) if kind is Signal.WORKING_SET else _held(process.held_bytes(), absence)
    return cgroup.read_working_set() if kind is Signal.WORKING_SET else cgroup.read_unreclaimable()


def signal_bytes(
    kind: Signal, process_reading: ProcessReading, cgroup_reading: CgroupReading | Absent
) -> SignalReading:
    """The bytes that count under that signal (design: "Which bytes count").

    Only a process without a cgroup of its own, which one shared with the sidecar is not, is measured by its own
    figures instead; one figure missing in a cgroup makes the signal absent, since another source for one tick would
    be a step that nobody made.
    """
    if kind is Signal.RESIDENT_SET_SIZE:
        return SignalReading(process_reading.resident, f"{process_reading.source} VmRSS")
    if isinstance(cgroup_reading, Absent):
        if kind is Signal.WORKING_SET:
            return _working_set_without(cgroup_reading)
        held = total(process_reading.anonymous, process_reading.shmem, process_reading.page_tables)
        return _held(SignalReading(held, process_reading.source), cgroup_reading)
    if kind is Signal.WORKING_SET:
        return SignalReading(cgroup_reading.working_set, f"{cgroup_reading.source} {WORKING_SET_RULE}")
    return SignalReading(cgroup_reading.unreclaimable, cgroup_reading.unreclaimable_source)


def _own(cgroup: MemoryCgroup | Absent) -> Absent | None:
    """Why the figures of the cgroup are not those of the engine; None when they are."""
    return SHARED if isinstance(cgroup, MemoryCgroup) and cgroup.shared else None


def _working_set_without(absence: Absent) -> SignalReading:
    return SignalReading(absence, "no cgroup")  # a process has no inactive page cache of its own


def _held(process_reading: SignalReading, absence: Absent) -> SignalReading:
    source = f"{process_reading.source} {' + '.join(HELD)}, without a cgroup of its own: {absence.reason}"
    return SignalReading(process_reading.bytes, source)
