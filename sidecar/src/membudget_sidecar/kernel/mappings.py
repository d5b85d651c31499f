"""What a process' mappings hold, by kind: heap, stack, code, libraries, files.

Covers: reading /proc/<pid>/smaps once and adding up. It walks every page, 9 ms per GB: for an answer that a person
asked for, never in the loop. Does not cover whose the bytes are (`breakdown`) nor the figures of each tick (`process`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from membudget_contract.breakdown_api import PartKind
from membudget_sidecar.kernel.kernel_file import parse_count
from membudget_sidecar.kernel.process import Process
from membudget_sidecar.kernel.reading import Absent

_MAPPING: Final = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S{4} [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ \d+ *(.*)", re.ASCII)
_LIBRARY: Final = re.compile(r"\.so(\.[\w.]+)?( \(deleted\))?$", re.ASCII)
_SHARED: Final = ("/memfd:", "/dev/shm/", "/dev/zero", "/SYSV")  # noqa: S108  names of mappings, nothing is written
_NAMED: Final = {"": PartKind.ANONYMOUS, "[heap]": PartKind.HEAP, "[stack]": PartKind.STACK}
_FIELDS: Final = ("Rss", "Anonymous")


class RegionBytes(NamedTuple):
    """Resident bytes, and those of them that are anonymous: what a private mapping of a file has changed, too."""

    resident: int
    anonymous: int


@dataclass(frozen=True, slots=True)
class Regions:
    """Bytes by kind of mapping; they sum to the resident set as these lines had it."""

    source: str
    kinds: Mapping[PartKind, RegionBytes]

    @property
    def resident(self) -> int:
        """Bytes of all kinds."""
        return sum(region.resident for region in self.kinds.values())


def read_regions(process: Process) -> Regions | Absent:
    """The mappings of now; absent with the reason, as for a process of another user or one that ended."""
    directory = process.proc / str(process.pid)
    source = directory / "smaps"
    try:
        program = str((directory / "exe").readlink())
        with source.open(encoding="utf-8", errors="replace") as lines:
            kinds = regions(lines, program)
    except OSError as error:
        return Absent(f"{source}: {error.strerror}")
    gone = process.absence()
    if gone is not None:
        return gone
    return (
        Regions(str(source), kinds) if kinds else Absent(f"{source}: no mappings, the process has no memory any more")
    )


def regions(lines: Iterable[str], program: str) -> dict[PartKind, RegionBytes]:
    """The lines of smaps, added up; `program` is the file that the process was started from."""
    found: dict[PartKind, RegionBytes] = {}
    kind = PartKind.ANONYMOUS
    for line in lines:
        mapping = _MAPPING.match(line)
        if mapping is not None:
            kind = _kind(mapping[1].rstrip(), program)
            continue
        name, _, rest = line.partition(":")
        if name not in _FIELDS:
            continue
        amount = (parse_count(rest.removesuffix("kB\n").strip()) or 0) * 1024
        before = found.get(kind, RegionBytes(0, 0))
        found[kind] = (
            before._replace(resident=before.resident + amount)
            if name == "Rss"
            else before._replace(anonymous=before.anonymous + amount)
        )
    return found


def _kind(name: str, program: str) -> PartKind:
    if name in _NAMED:
        return _NAMED[name]
    if name.startswith("["):  # vdso, vvar: the kernel's own pages, shown to every process
        return PartKind.ANONYMOUS if name.startswith("[anon:") else PartKind.KERNEL
    if name == program:
        return PartKind.CODE
    if name.startswith(_SHARED):
        return PartKind.SHARED
    return PartKind.LIBRARIES if _LIBRARY.search(name) else PartKind.FILES
