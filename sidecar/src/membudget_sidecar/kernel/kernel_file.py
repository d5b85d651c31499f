"""Text files of the kernel: read whole, parsed line by line, never raising.

Covers opening, reading and the four shapes that procfs and cgroupfs use: one number, `key value` lines, `Key:
n kB` lines, and the pressure file. A line that does not parse is left out and the others count. Does not
cover what the figures mean: see `process` and `cgroup`.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from membudget_sidecar.kernel.reading import Absent, Fraction, Reading

_CHUNK = 65536  # larger than any file read here, so that one read(2) takes it and a second one sees the end
_LARGEST = 2**64 - 1  # the kernel's counters are unsigned 64 bit; old v1 kernels write this one for "no limit"
_LARGEST_DIGITS = 20
_KIBIBYTES = re.compile(r"^(\w+):[ \t]*(\S+) kB$", re.ASCII | re.MULTILINE)
_STALL = re.compile(r"^some avg10=(\d{1,3}\.\d{2}) ", re.ASCII | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Figures:
    """The named figures of one file, in bytes or counts; `absence` says why it could not be read at all."""

    source: str
    values: Mapping[str, int]
    absence: Absent | None = None

    def get(self, name: str) -> Reading:
        """The figure of that name; absent with a reason that names the file."""
        if self.absence is not None:
            return self.absence
        value = self.values.get(name)
        return Absent(f"{self.source}: no figure {name}") if value is None else value

    def first(self, *names: str) -> Reading:
        """The first of the names that the file has, for figures that kernels renamed; absent without any."""
        known = next((name for name in names if name in self.values), names[0])
        return self.get(known)


def read_text(path: str) -> str | Absent:
    """The whole text of a kernel file; absent with the system's reason when it cannot be opened or read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks: list[bytes] = []
            while chunk := os.read(descriptor, _CHUNK):
                chunks.append(chunk)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Absent(f"{path}: {error.strerror}")
    return b"".join(chunks).decode("ascii", errors="replace")


def read_count(path: str) -> Reading:
    """The one number a file holds; absent when it holds something else."""
    text = read_text(path)
    if isinstance(text, Absent):
        return text
    value = parse_count(text.strip())
    return Absent(f"{path}: not a number: {text[:40]!r}") if value is None else value


def read_figures(path: str, parse: Callable[[str], dict[str, int]]) -> Figures:
    """The figures of a file of many lines, parsed by `parse_keyed` or `parse_kibibytes`."""
    text = read_text(path)
    if isinstance(text, Absent):
        return Figures(path, {}, text)
    return Figures(path, parse(text))


def parse_count(text: str) -> int | None:
    """A decimal number of at most 64 bits, digits only; None for anything else.

    Stricter than `int()`, which takes signs, underscores and other scripts' digits, and raises at 4,300
    digits.
    """
    if len(text) > _LARGEST_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    value = int(text)
    return value if value <= _LARGEST else None


def parse_keyed(text: str) -> dict[str, int]:
    """The `key value` lines of memory.stat, .events and .oom_control; other lines are left out."""
    figures: dict[str, int] = {}
    for line in text.split("\n"):
        key, _, number = line.partition(" ")
        value = parse_count(number)
        if key and value is not None:
            figures[key] = value
    return figures


def only(*names: str) -> Callable[[str], dict[str, int]]:
    """A `parse_keyed` that looks for these names alone, for files that are read ten times a second."""
    lines = re.compile(rf"^({'|'.join(map(re.escape, names))}) ([0-9]{{1,{_LARGEST_DIGITS}}})$", re.MULTILINE)

    def parse(text: str) -> dict[str, int]:
        return {name: int(number) for name, number in lines.findall(text) if int(number) <= _LARGEST}

    return parse


def parse_kibibytes(text: str) -> dict[str, int]:
    """The `Key:  n kB` lines of status and smaps_rollup, in bytes; other lines are left out."""
    figures: dict[str, int] = {}
    for key, number in _KIBIBYTES.findall(text):
        value = parse_count(number)
        if value is not None:
            figures[key] = value * 1024
    return figures


def read_stall_percent(path: str) -> Fraction:
    """`some avg10` of a pressure file: in which percentage of the last 10 s a task waited for memory."""
    text = read_text(path)
    if isinstance(text, Absent):
        return text
    line = _STALL.search(text)
    return Absent(f"{path}: no some avg10") if line is None else float(line[1])
