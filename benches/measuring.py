"""What the scripts here share: a fresh process for each measurement, and the kernel's figures of it.

Not a benchmark itself. Each script measures membudget and a peer in one run, side by side, and prints ratios:
absolute times depend on the machine.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Figure = TypeVar("Figure")

MIB = 1024 * 1024


def anonymous_bytes() -> int:
    """RssAnon of this process."""
    return _status_bytes("RssAnon")


def resident_bytes(pid: int | str = "self") -> int:
    """VmRSS of a process."""
    return _status_bytes("VmRSS", pid)


def private_bytes(pid: int | str = "self") -> int:
    """What would be free if only this process ended: Private_Clean and Private_Dirty of smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_") and "Hugetlb" not in line) * 1024


def in_fresh_process(measure: Callable[..., Figure], *arguments: object) -> Figure:
    """Run a measurement in a new interpreter, so that nothing before it weighs in."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table with the machine it was measured on."""
    print(f"\n## {title}\n\n{table_text(columns, rows)}")


def table_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The machine and a Markdown table, as lines."""
    machine = f"{os.cpu_count()} processors, {platform.system()} {platform.release()}"
    lines = [f"{machine}, Python {platform.python_version()}", "", "| " + " | ".join(columns) + " |"]
    lines.append("|" + "---|" * len(columns))
    for row in rows:
        cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def put_section(page: Path, name: str, text: str) -> None:
    """Puts a text between the two comments of a page that name it. Raises ValueError where they are missing."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} has no place for {name!r}: it needs the lines {begin.strip()} and {end}")
    page.write_text(f"{before}{begin}{text}\n{end}{after}")


def _status_bytes(field: str, pid: int | str = "self") -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024
