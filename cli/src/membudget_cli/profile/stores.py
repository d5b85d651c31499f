"""The five store profiles: in memory, on SQLite, per chunk, linearity, release on close.

Covers: which processes fill which stores. Does not cover filling (`measured.chunk_store`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from membudget_cli.profile.outside import MeasuredProgram
from membudget_cli.profile.results import StoreRun, Stores

CHUNKS: Final = 10_000
RUNS: Final = 3
DOUBLED: Final = (12_500, 25_000, 50_000)
QUICK_DOUBLED: Final = DOUBLED[:2]
"""Of fewer, what a store costs once, some 70 kB, is a twentieth: docs/decisions/0024."""
KINDS: Final = ("memory", "database", "objects")


def measure_stores(lines: Path, folder: Path, tell: Callable[[str], None], *, quick: bool) -> Stores:
    """`lines`: the chunks. Raises ProgramFailed."""
    planned = [(kind, CHUNKS) for kind in KINDS for _ in range(1 if quick else RUNS)]
    planned += [
        ("memory", count) for count in (QUICK_DOUBLED if quick else DOUBLED) if ("memory", count) not in planned
    ]
    runs: list[StoreRun] = []
    for number, (kind, count) in enumerate(planned, 1):
        tell(f"stores: {kind}, {count:,} chunks ({number} of {len(planned)})")
        runs.append(_run(kind, count, lines, folder / f"store-{number}"))
    return Stores(tuple(runs))


def _run(kind: str, count: int, lines: Path, folder: Path) -> StoreRun:
    folder.mkdir()
    with MeasuredProgram("chunk_store", [kind, str(folder), str(lines), str(count)], folder) as program:
        empty = program.stage("empty").anonymous_bytes
        full = program.stage("full")
        looked = program.stage("looked")
        closed = program.stage("closed")
    return StoreRun(
        kind=kind,
        chunks=count,
        grown_bytes=full.anonymous_bytes - empty,
        reported_bytes=int(full.figures[0]),
        lookups_per_second=looked.figures[0],
        kept_bytes=closed.anonymous_bytes - empty,
    )
