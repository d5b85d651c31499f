"""`membudget profile`: what is measured in which order, and what comes of it.

Covers: parts, temporary folders, progress, output. Does not cover a part's measurement (`stores`, `mapped_index`,
`caches`, `workload`) nor the documents (`report`, `plots`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from membudget_cli.demo.stack import Folders, build_index, temporary_folders
from membudget_cli.figures import document
from membudget_cli.profile.caches import measure_caches
from membudget_cli.profile.machine import load_average, machine
from membudget_cli.profile.mapped_index import measure_mapped_index
from membudget_cli.profile.outside import run_to_end
from membudget_cli.profile.report import write_report
from membudget_cli.profile.results import Profile
from membudget_cli.profile.stores import measure_stores
from membudget_cli.profile.verdicts import WORDS, Verdict, verdicts
from membudget_cli.profile.workload import measure_workload
from membudget_cli.programs import ProgramFailed
from membudget_engine.ingest.python_source import standard_library_root

COLLECTION: Final = "stdlib"
COLOURS: Final = {True: "green", False: "bold red", None: "yellow"}
TELL_SECONDS: Final = 30.0
QUICK_TREE: Final = "asyncio"
"""A quick profile's corpus is this package of the standard library."""


class ProfileAnswer(msgspec.Struct, frozen=True):
    """What `-o json` and `-o yaml` answer."""

    profile: Profile
    verdicts: list[Verdict]
    report: str | None
    """The Markdown file; None without --report."""


def run_profile(parts: Collection[str], target: Path | None, output: str, *, quick: bool) -> int:
    """Measure the parts, write the report into `target`, show the verdicts; 0 when none fails, else 1."""
    progress = Progress(sys.stderr.isatty())
    try:
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)  # before minutes of work, not after
        with temporary_folders("profile") as folders:
            profile = _measured(parts, folders, progress.tell, quick=quick)
        report = None if target is None else write_report(profile, verdicts(profile), target)
    except (ProgramFailed, OSError) as error:
        progress.end()
        sys.stderr.write(f"membudget profile: {error}\n")
        return 1
    finally:
        progress.end()
    found = verdicts(profile)
    if output == "table":
        _show(found, report)
    else:
        answer = ProfileAnswer(profile, found, None if report is None else str(report))
        sys.stdout.write(document(answer, output))
    return 0 if all(verdict.holds is not False for verdict in found) else 1


def _measured(parts: Collection[str], folders: Folders, tell: Callable[[str], None], *, quick: bool) -> Profile:
    started, load_before = time.monotonic(), load_average()
    tree = standard_library_root()
    if quick:
        tree /= QUICK_TREE
    source, lines = f"{COLLECTION}={tree}", folders.root / "chunks.ndjson"
    if {"stores", "caches"} & {*parts}:
        tell("corpus: reading code chunks")
        run_to_end("corpus_lines", [str(tree), str(lines)], folders.root)
    if {"mmap", "workload"} & {*parts}:
        tell("corpus: building the index")
        build_index(folders, [source])
    stores = measure_stores(lines, folders.root, tell, quick=quick) if "stores" in parts else None
    collection = folders.data / COLLECTION
    mmap = measure_mapped_index(collection, folders.root, tell, quick=quick) if "mmap" in parts else None
    caches = measure_caches(lines, folders.root, tell, quick=quick) if "caches" in parts else None
    workload = measure_workload(folders, COLLECTION, tree, tell, quick=quick) if "workload" in parts else None
    return Profile(
        command=" ".join(["membudget", *sys.argv[1:]]),
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        quick=quick,
        seconds=round(time.monotonic() - started, 1),
        machine=machine(load_before),
        stores=stores,
        mmap=mmap,
        caches=caches,
        workload=workload,
    )


class Progress:
    """One line that changes on a terminal; elsewhere a line for each new step, and one each half a minute."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._step = ""
        self._told_at = 0.0

    def tell(self, text: str) -> None:
        """What is done now: a step, and after a comma how far it is."""
        step = text.partition(",")[0]
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
        elif step != self._step or time.monotonic() - self._told_at >= TELL_SECONDS:
            sys.stderr.write(f"{text}\n")
            self._told_at = time.monotonic()
        sys.stderr.flush()
        self._step = step

    def end(self) -> None:
        """Leave nothing half-written on a terminal."""
        if self._terminal and self._step:
            sys.stderr.write("\r\x1b[K")
            self._step = ""


def _show(found: list[Verdict], report: Path | None) -> None:
    console = Console()
    table = Table("", "promise", "measured", "holds", title="membudget profile", title_justify="left")
    part = ""
    for verdict in found:
        if part and verdict.part != part:
            table.add_section()
        table.add_row(
            verdict.part if verdict.part != part else "",
            verdict.promise,
            verdict.measured,
            f"[{COLOURS[verdict.holds]}]{WORDS[verdict.holds]}[/]",
        )
        part = verdict.part
    console.print(table)
    if report is not None:
        console.print(f"report: {os.path.relpath(report)}", soft_wrap=True, highlight=False)
