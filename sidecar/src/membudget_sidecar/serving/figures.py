"""Readings as messages: each figure with its source, or the reason why there is none.

Covers: the process, the cgroup, the history. Pure. Does not read (`sample`) nor serve (`local_status`).
"""

from __future__ import annotations

from membudget_contract.figures_api import (
    CgroupFigures,
    Figure,
    HistoryList,
    HistorySample,
    ProcessFigures,
    Share,
)
from membudget_sidecar.history import History
from membudget_sidecar.kernel.reading import Absent, Fraction, Reading
from membudget_sidecar.kernel.sample import Sample


def figure(reading: Reading, source: str) -> Figure:
    """A reading with its source, or the reason why there is none."""
    if isinstance(reading, Absent):
        return Figure(value=None, absent=reading.reason)
    return Figure(value=reading, source=source)


def share(fraction: Fraction) -> Share:
    """A fraction, or the reason why there is none."""
    if isinstance(fraction, Absent):
        return Share(value=None, absent=fraction.reason)
    return Share(value=fraction)


def known(reading: Reading) -> int | None:
    """Without its reason, which stands elsewhere in the same answer."""
    return None if isinstance(reading, Absent) else reading


def known_fraction(fraction: Fraction) -> float | None:
    """Without its reason, which stands elsewhere in the same answer."""
    return None if isinstance(fraction, Absent) else fraction


def process_figures(sample: Sample | Absent) -> ProcessFigures:
    """What the kernel says of the process; without a sample every figure is absent for the same reason."""
    if isinstance(sample, Absent):
        nothing = figure(sample, "none")
        return ProcessFigures(**dict.fromkeys(ProcessFigures.__struct_fields__, nothing))
    read = sample.process

    def of(reading: Reading, name: str) -> Figure:
        return figure(reading, f"{read.source} {name}")

    return ProcessFigures(
        anonymous=of(read.anonymous, "RssAnon"),
        file=of(read.file, "RssFile"),
        shmem=of(read.shmem, "RssShmem"),
        swap=of(read.swap, "VmSwap"),
        page_tables=of(read.page_tables, "VmPTE"),
        minor_faults=of(read.minor_faults, "minflt"),
        major_faults=of(read.major_faults, "majflt"),
        threads=of(read.threads, "num_threads"),
        cpu_milliseconds=of(read.cpu_milliseconds, "utime + stime"),
    )


def cgroup_figures(sample: Sample | Absent) -> CgroupFigures:
    """What the kernel says of the cgroup; without one every figure is absent for the same reason."""
    read = sample if isinstance(sample, Absent) else sample.cgroup
    if isinstance(read, Absent):
        nothing = figure(read, "none")
        names = set(CgroupFigures.__struct_fields__) - {"version", "stall_percent"}
        return CgroupFigures(version=None, stall_percent=share(read), **dict.fromkeys(names, nothing))
    return CgroupFigures(
        version=read.version,
        usage=figure(read.usage, read.source),
        limit=figure(read.limit, read.source),
        working_set=figure(read.working_set, read.source),
        unreclaimable=figure(read.unreclaimable, read.unreclaimable_source),
        swap=figure(read.swap, read.source),
        limit_hits=figure(read.limit_hits, read.source),
        oom_kills=figure(read.oom_kills, read.source),
        refaults=figure(read.refaults, read.source),
        stall_percent=share(read.stall_percent),
    )


def history_list(history: History, last: int, wall_ahead: float) -> HistoryList:
    """The last samples; `wall_ahead` is by how much the wall clock is ahead of the monotonic one."""
    # The loop may overwrite the oldest sample by a new one while they are copied.
    samples = sorted(history.samples(), key=lambda sample: sample[0])
    return HistoryList(
        samples=tuple(_history_sample(at + wall_ahead, reading) for at, reading in samples[-last:]),
        kept=len(samples),
        peak_bytes=known(history.peak()),
        mean_bytes=known_fraction(history.average()),
        deviation_bytes=known_fraction(history.deviation()),
    )


def _history_sample(at: float, reading: Reading) -> HistorySample:
    if isinstance(reading, Absent):
        return HistorySample(at=at, used_bytes=None, absent=reading.reason)
    return HistorySample(at=at, used_bytes=reading)
