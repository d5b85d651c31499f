"""The report of a profile: Markdown, with plots beside it where matplotlib is installed.

Covers: the text, written beside and renamed, so that no half report is left. Does not cover verdicts (`verdicts`) nor
drawing (`plots`). A folder `docs` gets `docs/profile.md` and `docs/images/profile-*.png`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from membudget_cli.figures import mebibytes, milliseconds
from membudget_cli.profile.results import Caches, Machine, MappedIndexes, Phase, Profile, Side, Stores, Workload
from membudget_cli.profile.verdicts import WORDS, Verdict, chunk_bytes, saving

REPORT: Final = "profile.md"
IMAGES: Final = "images"
WITHOUT_PLOTS: Final = "No plots: they need matplotlib, `pip install 'membudget-cli[profile]'`."

_KINDS: Final = {"memory": "in memory", "database": "on SQLite", "objects": "plain objects in a dict"}


def write_report(profile: Profile, found: Sequence[Verdict], target: Path) -> Path:
    """Write the report into a folder, plots into its `images`; returns the Markdown file. Raises OSError."""
    try:
        from membudget_cli.profile.plots import draw_plots
    except ModuleNotFoundError:
        plots: Mapping[str, Path] = {}
    else:
        plots = draw_plots(profile, target / IMAGES)
    report = target / REPORT
    aside = report.with_suffix(".new")
    aside.write_text(markdown(profile, found, {part: f"{IMAGES}/{plot.name}" for part, plot in plots.items()}))
    aside.replace(report)
    return report


def markdown(profile: Profile, found: Sequence[Verdict], plots: Mapping[str, str]) -> str:
    """The whole report; `plots`: links by part, those that there are."""
    parts = [_head(profile), _verdict_table(found)]
    if not plots:
        parts.append(WITHOUT_PLOTS + "\n")
    if profile.stores is not None:
        parts.append(_section("stores", _stores(profile.stores), plots))
    if profile.mmap is not None:
        parts.append(_section("mmap", _mapped(profile.mmap), plots))
    if profile.caches is not None:
        parts.append(_section("caches", _caches(profile.caches), plots))
    if profile.workload is not None:
        parts.append(_section("workload", _workload(profile.workload), plots))
    return "\n".join(parts)


def _head(profile: Profile) -> str:
    quick = "\nA quick run: smaller corpus, fewer runs; its figures are rough.\n" if profile.quick else ""
    return f"""# What membudget costs and saves

Written by `{profile.command}` on {profile.measured_at}, in {profile.seconds:.0f} s. {_machine(profile.machine)}
{quick}
Every figure is of processes of their own, and their memory is what the kernel tells other processes of them:
anonymous bytes (`RssAnon`) while the process stands still, in the workload the resident set every 50 ms. Nothing is
estimated. The corpus is the standard library of the running Python. MiB are 1,048,576 bytes. Times depend on the
machine and on who else uses it: compare them within a run.
"""


def _machine(machine: Machine) -> str:
    limit = "" if machine.limit_bytes is None else f" under a limit of {mebibytes(machine.limit_bytes)}"
    return (
        f"{machine.processors} processors, {mebibytes(machine.memory_bytes)} of memory{limit}, {machine.kernel}, "
        f"Python {machine.python}, {machine.libc}, membudget {machine.version}; load average {machine.load_before} "
        f"before, {machine.load_after} after."
    )


def _verdict_table(found: Sequence[Verdict]) -> str:
    rows = [(verdict.part, verdict.promise, verdict.measured, WORDS[verdict.holds]) for verdict in found]
    return _table(("part", "promise", "measured", "holds"), rows)


def _section(part: str, text: str, plots: Mapping[str, str]) -> str:
    picture = f"\n![{part}]({plots[part]})\n" if part in plots else ""
    return f"{text}{picture}"


def _stores(stores: Stores) -> str:
    chunks = min(run.chunks for run in stores.runs if run.kind == "database")
    rows = [
        (
            name,
            f"{chunk_bytes(stores, kind, chunks):,.0f}",
            f"{max(run.lookups_per_second for run in stores.runs if run.kind == kind):,.0f}",
        )
        for kind, name in _KINDS.items()
    ]
    grown = [
        (f"{run.chunks:,}", mebibytes(run.grown_bytes), f"{100 * (1 - run.kept_bytes / run.grown_bytes):.1f} %")
        for run in sorted(stores.runs, key=lambda run: run.chunks)
        if run.kind == "memory"
    ]
    return f"""## Stores of code chunks

A process fills a store, asks it and closes it; anonymous memory beyond that of the empty store, for {chunks:,} chunks:

{_table(("store", "bytes a chunk", "look-ups a second of processor time"), rows)}
How the store in memory grows, and what closing gives back:

{_table(("chunks", "anonymous memory", "back after closing"), grown)}"""


def _mapped(indexes: MappedIndexes) -> str:
    rows = [
        (
            run.kind,
            mebibytes(run.opened_bytes),
            mebibytes(run.searched_bytes),
            f"{1000 * run.p50:.3f} ms",
            f"{1000 * run.p90:.3f} ms",
        )
        for run in indexes.runs
    ]
    return f"""## Mapped index

One index file of {mebibytes(indexes.index_bytes)} ({indexes.vectors:,} vectors of {indexes.dimension} dimensions),
loaded into memory by one process and mapped by another, by turns; {indexes.queries:,} warm queries each. Anonymous
memory that opening and searching added:

{_table(("index", "open", "after searching", "p50", "p90"), rows)}"""


def _caches(caches: Caches) -> str:
    rows = [
        (
            "membudget" if run.kind == "bounded" else "dict",
            mebibytes(run.full_bytes),
            mebibytes(run.reported_bytes),
            f"{100 * run.hit_ratio:.1f} %",
            f"{mebibytes(run.shrunk_bytes)} ({100 * (1 - run.shrunk_bytes / run.full_bytes):.0f} % back)",
            mebibytes(run.cleared_bytes),
        )
        for run in caches.runs
    ]
    names = ("cache", "full", "as it counts itself", "hits", "a tenth kept", "cleared")
    return f"""## Caches

The same skewed requests to a cache with a ceiling of {mebibytes(caches.ceiling_bytes)} and to a dict, until distinct
values of {caches.offered_times} times that were offered; then the budget moves to a tenth, and of the dict nine of ten
entries are deleted. Anonymous memory:

{_table(names, rows)}"""


def _workload(workload: Workload) -> str:
    rows = [row for phase in workload.phases for row in _phase_rows(phase)]
    names = ("phase", "engine", "resident", "peak", "anonymous", "p50", "p99", "CPU a question", "from memory")
    savings = "; ".join(
        f"{phase.name}: {100 * saving(phase):.0f} % fewer resident bytes, "
        f"{100 * (1 - phase.ours.anonymous_bytes / phase.naive.anonymous_bytes):.0f} % fewer anonymous"
        for phase in workload.phases
    )
    lost, pause = sum(phase.ours.conversations_lost for phase in workload.phases), workload.phases[-1].pause_seconds
    failures = "".join(f"- {count} x {text}\n" for text, count in workload.failures.items())
    return f"""## The whole workload, and a naive build

membudget's engine with its sidecar under a budget of {mebibytes(workload.budget_bytes)} of resident memory, beside
what one builds first: the same index file loaded, and answers, vectors, chunks, files and conversations in dicts that
nothing bounds (`measured/naive_engine.py`; same embedder, HTTP server, number of workers, the same answers).
{workload.agents} agents ask each question of both, one after the other, so both are timed in the same moments. In each
fourth turn an agent opens the best hit's file and adds to its conversation. The agents ask as fast as the machine
answers, and the last questions with pauses of {pause:g} s: a full machine's times are those of a queue, which grow
much faster than the processor time of a question. Resident memory at the end of each phase:

{_table(names, rows)}
{savings}. Conversations that gave way to other bytes, and were begun anew: {lost}.

{failures}"""


def _phase_rows(phase: Phase) -> list[tuple[str, ...]]:
    named = f"{phase.name}: {phase.questions:,} questions, {phase.distinct:,} distinct"
    return [(named, "membudget", *_side(phase.ours)), ("", "naive", *_side(phase.naive))]


def _side(side: Side) -> tuple[str, ...]:
    answers = sum(side.answered_by.values())
    cached = answers - side.answered_by.get("index", 0)
    return (
        mebibytes(side.resident_bytes),
        mebibytes(side.peak_bytes),
        mebibytes(side.anonymous_bytes),
        milliseconds(side.p50),
        milliseconds(side.p99),
        milliseconds(side.processor_seconds / answers if answers else None),
        f"{100 * cached / answers:.0f} %" if answers else "-",
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:], ""])
