"""The cache profile: a bounded cache and a dict, offered the same, several times what the cache may hold.

Covers: the two processes. Does not cover the requests (`measured.cache`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from membudget_cli.profile.outside import MeasuredProgram
from membudget_cli.profile.results import CacheRun, Caches
from membudget_contract.quantities import MIB

CEILING_BYTES: Final = 16 * MIB
QUICK_CEILING_BYTES: Final = 8 * MIB
OFFERED_TIMES: Final = 3
KINDS: Final = ("bounded", "dict")


def measure_caches(lines: Path, folder: Path, tell: Callable[[str], None], *, quick: bool) -> Caches:
    """`lines`: what values are made of. Raises ProgramFailed."""
    ceiling = QUICK_CEILING_BYTES if quick else CEILING_BYTES
    runs: list[CacheRun] = []
    for kind in KINDS:
        tell(f"caches: {kind}, offered {OFFERED_TIMES} times {ceiling // MIB} MiB")
        runs.append(_run(kind, lines, folder / f"cache-{kind}", ceiling))
    return Caches(ceiling, OFFERED_TIMES, tuple(runs))


def _run(kind: str, lines: Path, folder: Path, ceiling: int) -> CacheRun:
    folder.mkdir()
    arguments = [kind, str(folder), str(lines), str(ceiling), str(OFFERED_TIMES)]
    with MeasuredProgram("cache", arguments, folder) as program:
        stages = [program.stage(word) for word in ("empty", "full", "shrunk", "cleared")]
    empty, full, shrunk, cleared = stages
    reported, hit_ratio = full.figures
    return CacheRun(
        kind=kind,
        full_bytes=full.anonymous_bytes - empty.anonymous_bytes,
        reported_bytes=int(reported),
        hit_ratio=hit_ratio,
        shrunk_bytes=shrunk.anonymous_bytes - empty.anonymous_bytes,
        cleared_bytes=cleared.anonymous_bytes - empty.anonymous_bytes,
    )
