"""Memory figures of one process, from its files under a proc root.

Covers residency, its kinds, faults and own cost, and the question whether the pid still means the same
process. Does not cover the container around it (`cgroup`) nor which figure is the signal (`sample`). Reads
/proc without psutil: the library would cost 4 MB resident for figures that stand in two files which are read
here anyway. File formats: proc_pid_stat(5), proc_pid_statm(5), proc_pid_status(5), proc_pid_smaps(5).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from membudget_sidecar.kernel.kernel_file import parse_count, parse_kibibytes, read_figures, read_text
from membudget_sidecar.kernel.reading import Absent, Reading, SignalReading, total

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Places in /proc/<pid>/stat after the closing parenthesis of the command, from 0; the manual counts from 1
# with pid and command.
_MINOR_FAULTS, _MAJOR_FAULTS, _USER_TICKS, _SYSTEM_TICKS, _THREADS, _START_TICKS = 7, 9, 11, 12, 17, 19

HELD = ("RssAnon", "RssShmem", "VmPTE")
"""What of a process no reclaim brings back."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process told from all others: its pid, and its start in clock ticks since boot. Pids are reused."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """The figures of one moment, in bytes unless the field says otherwise, with the names of the kernel."""

    source: str  # the files they were read from
    resident: Reading  # VmRSS = RssAnon + RssFile + RssShmem
    anonymous: Reading  # RssAnon
    file: Reading  # RssFile: mapped files, and what costs nothing to drop
    shmem: Reading  # RssShmem: shared memory and tmpfs that is mapped
    page_tables: Reading  # VmPTE
    swap: Reading  # VmSwap
    data: Reading  # VmData: size of private writable mappings, resident or not, as are the next three
    stack: Reading  # VmStk
    code: Reading  # VmExe
    libraries: Reading  # VmLib
    minor_faults: Reading  # minflt, count since start
    major_faults: Reading  # majflt, count since start
    threads: Reading  # num_threads, count
    cpu_milliseconds: Reading  # utime + stime, since start


class Process:
    """One process under a proc root, told from a later one with the same pid by its start time.

    Every reading looks at the start time after its figures: a pid that was reused in between is noticed, not
    reported.
    """

    def __init__(self, proc: Path, pid: int) -> None:
        self.proc = proc
        self.pid = pid
        directory = f"{proc}/{pid}"
        self.resident_source = f"{directory}/statm"
        self.proportional_source = f"{directory}/smaps_rollup"
        self._status = f"{directory}/status"
        self._stat = f"{directory}/stat"
        self.identity = self._identity(_stat_fields(self._stat))

    def resident_bytes(self) -> Reading:
        """Resident bytes from `resident_source`: the fast path, two short files of constant cost.

        The kernel may be off by 64 pages per processor here: it adds up its per-processor counters lazily for
        statm.
        """
        text = read_text(self.resident_source)
        return self.absence() or (text if isinstance(text, Absent) else self._resident(text))

    def proportional_bytes(self) -> Reading:
        """Pss from `proportional_source`: shared pages divided by their users, in bytes.

        Walks every page: 9 ms per GB. Never on a fast tick. Absent for a process of another user.
        """
        pss = read_figures(self.proportional_source, parse_kibibytes).get("Pss")
        return self.absence() or pss

    def held_bytes(self) -> SignalReading:
        """RssAnon + RssShmem + VmPTE, which no reclaim brings back: the same figures as `read` has, alone."""
        status = read_figures(self._status, parse_kibibytes)
        held = total(*(status.get(name) for name in HELD))
        gone = self.absence()
        return SignalReading(held if gone is None else gone, self._status)

    def read(self) -> ProcessReading:
        """All figures of status and stat. Those that cannot be read are absent, each with its reason."""
        status = read_figures(self._status, parse_kibibytes)
        fields = _stat_fields(self._stat)
        gone = self._absence(fields)

        def memory(name: str) -> Reading:
            return gone or status.get(name)

        def counter(place: int) -> Reading:
            return gone or _number(fields, place, self._stat)

        return ProcessReading(
            source=f"{self._status}, {self._stat}",
            resident=memory("VmRSS"),
            anonymous=memory("RssAnon"),
            file=memory("RssFile"),
            shmem=memory("RssShmem"),
            page_tables=memory("VmPTE"),
            swap=memory("VmSwap"),
            data=memory("VmData"),
            stack=memory("VmStk"),
            code=memory("VmExe"),
            libraries=memory("VmLib"),
            minor_faults=counter(_MINOR_FAULTS),
            major_faults=counter(_MAJOR_FAULTS),
            threads=counter(_THREADS),
            cpu_milliseconds=_milliseconds(counter(_USER_TICKS), counter(_SYSTEM_TICKS)),
        )

    def absence(self) -> Absent | None:
        """Why this process cannot be read any more: it ended, or its pid is another's. None while it lives."""
        return self._absence(_stat_fields(self._stat))

    def _absence(self, fields: list[str] | Absent) -> Absent | None:
        if isinstance(self.identity, Absent):
            return self.identity
        now = self._identity(fields)
        if isinstance(now, Absent):
            return now
        if now != self.identity:
            return Absent(
                f"the process with pid {self.pid} is another one since tick {now.start_ticks};"
                f" the one meant started at tick {self.identity.start_ticks}"
            )
        return None

    def _identity(self, fields: list[str] | Absent) -> ProcessIdentity | Absent:
        start = _number(fields, _START_TICKS, self._stat)
        return start if isinstance(start, Absent) else ProcessIdentity(self.pid, start)

    def _resident(self, statm: str) -> Reading:
        fields = statm.split()
        pages = parse_count(fields[1]) if len(fields) > 1 else None
        if pages is None:
            return Absent(f"{self.resident_source}: not the seven numbers of statm: {statm[:40]!r}")
        if fields[0] == "0":  # a zombie: its memory is gone, and 0 would read as a very good figure
            return Absent(f"{self.resident_source}: the process has no memory any more")
        return pages * _PAGE_BYTES


def _stat_fields(path: str) -> list[str] | Absent:
    text = read_text(path)
    if isinstance(text, Absent):
        return text
    # The command stands in parentheses and may itself hold spaces and parentheses; nothing after it can.
    return text.rpartition(")")[2].split()


def _number(fields: list[str] | Absent, place: int, source: str) -> Reading:
    if isinstance(fields, Absent):
        return fields
    value = parse_count(fields[place]) if place < len(fields) else None
    return Absent(f"{source}: no number in field {place + 3}") if value is None else value


def _milliseconds(user_ticks: Reading, system_ticks: Reading) -> Reading:
    ticks = total(user_ticks, system_ticks)
    return ticks if isinstance(ticks, Absent) else ticks * 1000 // _TICKS_PER_SECOND
