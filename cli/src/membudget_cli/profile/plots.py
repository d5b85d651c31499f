# pyright: reportUnknownMemberType=false
"""The plots of a profile, as PNG files.

Covers: one picture for each part. Does not cover the text (`report`). matplotlib is the extra `profile`, and leaves the
types of its keyword arguments open, hence the first line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from membudget_cli.profile.results import Caches, Curve, MappedIndexes, Profile, Stores, Workload
from membudget_cli.profile.verdicts import cache_run, chunk_bytes, p50, searched
from membudget_contract.quantities import MIB

OURS, NAIVE, LIMIT = "#3274d9", "#e0752d", "#d9364c"
INK, FAINT, GRID = "#24292f", "#6e7781", "#e3e6ea"
_SIZE: Final = (11.0, 4.2)
_DPI: Final = 110


def draw_plots(profile: Profile, folder: Path) -> Mapping[str, Path]:
    """Draw what was measured; the files by part. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[], Figure]] = {}
    if (stores := profile.stores) is not None:
        pictures["stores"] = lambda: _stores(stores)
    if (mmap := profile.mmap) is not None:
        pictures["mmap"] = lambda: _mapped(mmap)
    if (caches := profile.caches) is not None:
        pictures["caches"] = lambda: _caches(caches)
    if (workload := profile.workload) is not None:
        pictures["workload"] = lambda: _workload(workload)
    drawn: dict[str, Path] = {}
    for part, picture in pictures.items():
        figure, drawn[part] = picture(), folder / f"profile-{part}.png"
        figure.savefig(drawn[part], dpi=_DPI, metadata={"Software": ""})
        plt.close(figure)
    return drawn


def _stores(stores: Stores) -> Figure:
    figure, (left, right) = _panels("Stores of code chunks: anonymous memory, read from outside", 2)
    chunks = min(run.chunks for run in stores.runs if run.kind == "database")
    names = {"objects": "plain objects", "memory": "in memory", "database": "on SQLite"}
    figures = [chunk_bytes(stores, kind, chunks) for kind in names]
    _bars(left, list(names.values()), figures, [NAIVE, OURS, OURS], "{:,.0f}")
    _title(left, f"bytes a chunk, of {chunks:,}")
    runs = sorted((run for run in stores.runs if run.kind == "memory"), key=lambda run: run.chunks)
    largest = runs[-1]
    slope = largest.grown_bytes / largest.chunks
    right.plot([0, largest.chunks], [0, slope * largest.chunks / MIB], color=FAINT, linestyle="--", linewidth=1,
               label="in proportion")  # fmt: skip
    right.plot([run.chunks for run in runs], [run.grown_bytes / MIB for run in runs], "o", color=OURS, label="filled")
    right.plot([run.chunks for run in runs], [run.kept_bytes / MIB for run in runs], "o", color=NAIVE,
               label="after closing")  # fmt: skip
    right.set_xlabel("chunks in memory", color=FAINT)
    right.xaxis.set_major_locator(MaxNLocator(6))
    right.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    right.set_ylim(bottom=min(0.0, *(run.kept_bytes / MIB for run in runs)) - 0.3)
    right.set_xlim(left=0)
    right.legend(frameon=False)
    _title(right, "MiB by number of chunks")
    return figure


def _mapped(indexes: MappedIndexes) -> Figure:
    figure, (left, right) = _panels(
        f"One index file of {indexes.index_bytes / MIB:.1f} MiB, loaded and mapped: {indexes.vectors:,} vectors", 2
    )
    kinds = ["loaded", "mapped"]
    _bars(left, kinds, [searched(indexes, kind) / MIB for kind in kinds], [NAIVE, OURS], "{:.2f}")
    _title(left, "anonymous MiB after searching")
    _bars(right, kinds, [1000 * p50(indexes, kind) for kind in kinds], [NAIVE, OURS], "{:.3f}")
    for place, kind in enumerate(kinds):
        runs = [1000 * run.p50 for run in indexes.runs if run.kind == kind]
        right.plot([place + 0.34] * len(runs), runs, "_", color=INK, markersize=12)
    _title(right, "p50 of a query in ms; marks: each process")
    return figure


def _caches(caches: Caches) -> Figure:
    figure, (axes,) = _panels(
        f"A cache with a ceiling of {caches.ceiling_bytes / MIB:.0f} MiB, and a dict, offered "
        f"{caches.offered_times} times that",
        1,
    )
    runs = {name: cache_run(caches, kind) for name, kind in (("dict", "dict"), ("membudget's cache", "bounded"))}
    stages = {name: [run.full_bytes, run.shrunk_bytes, run.cleared_bytes] for name, run in runs.items()}
    heights = {name: [amount / MIB for amount in amounts] for name, amounts in stages.items()}
    _grouped(axes, ["after the requests", "a tenth kept", "cleared"], heights, "{:.1f}")
    axes.set_ylim(0, 1.3 * max(map(max, heights.values())))
    axes.axhline(caches.ceiling_bytes / MIB, color=LIMIT, linestyle="--", linewidth=1, label="ceiling")
    axes.legend(frameon=False, loc="upper left", ncols=3)
    _title(axes, "anonymous MiB beyond the empty cache's")
    return figure


def _workload(workload: Workload) -> Figure:
    figure, (left, right) = _panels(
        f"{workload.agents} agents ask both: the engine under {workload.budget_bytes / MIB:.0f} MiB, and a naive build",
        2,
        (5, 2),
    )
    naive = _mebibytes(workload.naive_curve)
    left.plot(*naive, color=NAIVE, linewidth=1.8, label="naive build")
    left.plot(*_mebibytes(workload.ours_curve), color=OURS, linewidth=1.8, label="membudget")
    budget = workload.budget_bytes / MIB
    left.axhline(budget, color=LIMIT, linestyle="--", linewidth=1, label="budget")
    soft = budget * workload.soft_percent / 100
    left.axhline(soft, color=LIMIT, linestyle=":", linewidth=1, label=f"soft threshold, {workload.soft_percent:.0f} %")
    for phase, end in zip(workload.phases, workload.phase_ends, strict=True):
        left.axvline(end, color=FAINT, linewidth=0.7)
        left.annotate(phase.name, (end, 0), (-3, 6), textcoords="offset points", rotation=90, ha="right", va="bottom",
                      color=FAINT, fontsize=9)  # fmt: skip
    left.set_ylim(0, 1.12 * max(budget, *naive[1]))
    left.set_xlim(0, workload.phase_ends[-1])
    left.set_xlabel("seconds", color=FAINT)
    left.legend(frameon=False, loc="upper left", ncols=4)
    _title(left, "resident MiB, read every 50 ms")
    medians = {
        "naive build": [1000 * phase.naive.p50 for phase in workload.phases],
        "membudget": [1000 * phase.ours.p50 for phase in workload.phases],
    }
    _grouped(right, [phase.name for phase in workload.phases], medians, "{:.2f}")
    _title(right, "p50 of a search in ms")
    return figure


def _panels(title: str, count: int, widths: tuple[int, ...] | None = None) -> tuple[Figure, list[Axes]]:
    figure = plt.figure(figsize=_SIZE, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=13, weight="bold")
    grid = figure.add_gridspec(1, count, width_ratios=widths)
    panels = [figure.add_subplot(grid[0, place]) for place in range(count)]
    for axes in panels:
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        axes.tick_params(colors=FAINT, length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
    return figure, panels


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=10)


def _bars(axes: Axes, names: list[str], values: list[float], colours: list[str], written: str) -> None:
    bars = axes.bar(names, values, color=colours, width=0.55)
    axes.bar_label(bars, [written.format(value) for value in values], padding=3, color=INK, fontsize=10)
    axes.margins(y=0.15)


def _grouped(axes: Axes, groups: list[str], heights: Mapping[str, list[float]], written: str) -> None:
    """For each group a bar of what is not membudget's, and one of what is."""
    width = 0.36
    for number, ((name, values), colour) in enumerate(zip(heights.items(), (NAIVE, OURS), strict=True)):
        places = [place + (number - 0.5) * (width + 0.02) for place in range(len(groups))]
        bars = axes.bar(places, values, width=width, color=colour, label=name)
        axes.bar_label(bars, [written.format(value) for value in values], padding=3, color=INK, fontsize=9)
    axes.set_xticks(range(len(groups)), groups)
    axes.margins(y=0.15)


def _mebibytes(curve: Curve) -> tuple[list[float], list[float]]:
    return [seconds for seconds, _ in curve], [resident / MIB for _, resident in curve]
