# pyright: reportUnknownMemberType=false
"""Pictures of the dashboards: the same queries, asked of a Prometheus, drawn without Grafana.

Covers: filling in variables, asking, the grid, lines, steps, stacks and figures, units. Does not cover where the data
comes from: who draws brings a way to ask. They are what docs/observability.md shows. matplotlib leaves the types of
its keyword arguments open, hence the first line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from membudget_observability.dashboards.panel import WIDTH, Unit

Series = tuple[str, list[tuple[float, float]]]
"""A name, and points: unix seconds and a figure."""
Ask = Callable[[str], list[dict[str, Any]]]
"""PromQL -> the series of the time that is drawn, as `query_range` answers them."""

RATE_INTERVAL: Final = "30s"
"""In place of $__rate_interval: the runs that are drawn last minutes, and are scraped every 3 s."""
_INCHES_WIDE: Final = 17.0
_INCHES_A_ROW: Final = 0.34
_HEADER_ROWS: Final = 2.2
_GAP: Final = 0.006
_INK, _FAINT, _PAPER, _PANEL = "#24292f", "#6e7781", "#f4f5f7", "#ffffff"
_COLOURS: Final = ("#3274d9", "#e0752d", "#2f9e5b", "#a352cc", "#d9364c", "#0f9fb0", "#8f6b32", "#e5a823", "#5b6b7b")
_THRESHOLDS: Final = {"green": "#2f9e5b", "yellow": "#c99a0c", "orange": "#e0752d", "red": "#d9364c"}
_MOST_IN_LEGEND: Final = 9
_GAP_SECONDS: Final = 15.0
"""Longer without a point, and the line ends there and begins anew."""
_NO_DATA: Final = "no data"
_SIZES: Final = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10))


def draw(dashboard: Mapping[str, Any], values: Mapping[str, str], ask: Ask, target: Path) -> None:
    """One dashboard with its variables set to these values, into a PNG file."""
    panels: list[dict[str, Any]] = dashboard["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + _HEADER_ROWS
    figure = plt.figure(figsize=(_INCHES_WIDE, rows * _INCHES_A_ROW), facecolor=_PAPER)
    chosen = "   ".join(f"{name}: {'All' if value == '.*' else value}" for name, value in values.items())
    figure.text(0.012, 1 - 0.9 / rows, dashboard["title"], fontsize=17, weight="bold", color=_INK, va="center")
    figure.text(0.012, 1 - 1.8 / rows, f"{dashboard['description']}   {chosen}", fontsize=10, color=_FAINT, va="center")
    series = {panel["id"]: _asked(panel, values, ask) for panel in panels if panel["type"] != "row"}
    times = [at for found in series.values() for _, points in found for at, _ in points] or [0.0, 1.0]
    span = min(times), max(times)
    for panel in panels:
        place = panel["gridPos"]
        left, width = place["x"] / WIDTH, place["w"] / WIDTH
        height = place["h"] / rows
        bottom = 1 - (place["y"] + _HEADER_ROWS) / rows - height
        if panel["type"] == "row":
            figure.text(
                0.012, bottom + height / 2, panel["title"], fontsize=12.5, weight="bold", color=_INK, va="center"
            )
            continue
        card = figure.add_axes((left + _GAP, bottom + _GAP / 2, width - 2 * _GAP, height - _GAP))
        _card(card, panel)
        if panel["type"] == "stat":
            _figure(card, panel, series[panel["id"]])
            continue
        inner = (left + 0.047, bottom + 2.2 / rows, width - 0.059, height - 3.6 / rows)
        axes = figure.add_axes(inner)
        _lines(axes, panel, series[panel["id"]], span)
        _legend(card, axes, columns=place["w"] // 2)
    figure.savefig(target, dpi=80, facecolor=_PAPER)
    plt.close(figure)


def _asked(panel: dict[str, Any], values: Mapping[str, str], ask: Ask) -> list[Series]:
    """Name and points of every series of the panel."""
    found: list[Series] = []
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
        for name, value in values.items():
            expression = expression.replace(f"${name}", value)
        for one in ask(expression):
            points = [(float(at), float(value)) for at, value in one["values"]]
            found.append((_named(target["legendFormat"], one["metric"]), points))
    return found


def _named(pattern: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern)


def _card(axes: Axes, panel: dict[str, Any]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(_PANEL)
    for spine in axes.spines.values():
        spine.set_color("#d9dce1")
    axes.text(0, 1, f"  {panel['title']}", fontsize=10.5, weight="bold", color=_INK, va="top", linespacing=2.2)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _figure(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    last = series[0][1][-1][1] if series else None
    text = _NO_DATA if last is None else told(last, defaults["unit"])
    steps = defaults["thresholds"]["steps"]
    passed = [step["color"] for step in steps if last is not None and (step["value"] is None or last >= step["value"])]
    axes.text(0.5, 0.4, text, fontsize=23, weight="bold", color=_THRESHOLDS[(passed or ["green"])[-1]],
              ha="center", va="center")  # fmt: skip


def _lines(axes: Axes, panel: dict[str, Any], series: list[Series], span: tuple[float, float]) -> None:
    custom = panel["fieldConfig"]["defaults"]["custom"]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_facecolor(_PANEL)
    if custom.get("stacking", {}).get("mode") == "normal":
        _stack(axes, series)
    else:
        steps = custom.get("lineInterpolation") == "stepAfter"
        for number, (name, points) in enumerate(series):
            times, figures = [at for at, _ in points], [value for _, value in points]
            for gap in reversed(range(1, len(times))):
                if times[gap] - times[gap - 1] > _GAP_SECONDS:
                    times.insert(gap, times[gap - 1])
                    figures.insert(gap, math.nan)
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(times, figures, color=colour, linewidth=1.7, label=name,
                      drawstyle="steps-post" if steps else "default")  # fmt: skip
            if custom.get("fillOpacity") and len(series) == 1:
                axes.fill_between(times, figures, color=colour, alpha=0.1, linewidth=0)
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=_THRESHOLDS[step["color"]], linewidth=1.0, linestyle=(0, (4, 4)))
    _dress(axes, unit, span, bool(series))


def _stack(axes: Axes, series: list[Series]) -> None:
    times = sorted({at for _, points in series for at, _ in points})
    values = [[dict(points).get(at, 0.0) for at in times] for _, points in series]
    colours = [_COLOURS[number % len(_COLOURS)] for number in range(len(series))]
    if times:
        axes.stackplot(times, values, labels=[name for name, _ in series], colors=colours, alpha=0.75, linewidth=0)


def _dress(axes: Axes, unit: str, span: tuple[float, float], has_data: bool) -> None:
    start, end = span

    def figure(value: float, _: object) -> str:
        return told(value, unit)

    def minutes(at: float, _: object) -> str:
        return f"{math.floor((at - start) / 60)}:{(at - start) % 60:02.0f}"

    axes.set_axisbelow(b=True)
    axes.grid(visible=True, axis="y", color="#e6e8eb", linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c8ccd1")
    axes.tick_params(labelsize=8, colors=_FAINT, length=0, pad=5)
    if not has_data:
        axes.set_yticks([])
        axes.set_xticks([])
        axes.text(0.5, 0.5, _NO_DATA, transform=axes.transAxes, ha="center", va="center", color=_FAINT, fontsize=10)
        return
    axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] <= 0 or axes.dataLim.ymax <= 0:
        axes.set_ylim(0, 1)
    axes.set_yticks(_ticks(axes.get_ylim()[1], unit))
    axes.yaxis.set_major_formatter(FuncFormatter(figure))
    axes.set_xlim(start, end)
    axes.set_xticks([start + second for second in range(0, int(end - start) + 1, 60)])
    axes.xaxis.set_major_formatter(FuncFormatter(minutes))


def _legend(card: Axes, axes: Axes, columns: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    card.legend(
        handles[:_MOST_IN_LEGEND], names[:_MOST_IN_LEGEND], loc="lower left", bbox_to_anchor=(0.0, -0.02), ncol=columns,
        fontsize=8, frameon=False, labelcolor=_INK, handlelength=1.1, columnspacing=1.1, handletextpad=0.5,
    )  # fmt: skip


def _ticks(most: float, unit: str) -> list[float]:
    """Four or so round figures: of bytes round as people count them."""
    size = _size(most)[1] if unit in {Unit.BYTES, Unit.BYTES_PER_SECOND} else 1.0
    locator = MaxNLocator(4, integer=unit == Unit.COUNT, steps=[1, 2, 2.5, 5, 10])
    return [float(tick) * size for tick in locator.tick_values(0, most / size) if tick * size <= most]


def told(value: float, unit: str) -> str:
    """A figure as people read it."""
    if unit == Unit.RATIO:
        return f"{value * 100:.3g} %"
    if unit in {Unit.BYTES, Unit.BYTES_PER_SECOND}:
        name, size = _size(value)
        return f"{value / size:.3g} {name}" + ("/s" if unit == Unit.BYTES_PER_SECOND else "")
    if unit == Unit.SECONDS:
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    return f"{value:.3g}/s" if unit == Unit.PER_SECOND else f"{value:.5g}"


def _size(value: float) -> tuple[str, float]:
    return next((pair for pair in _SIZES if abs(value) >= pair[1]), ("B", 1.0))


def load(file: Path) -> dict[str, Any]:
    """A dashboard as the chart ships it."""
    return json.loads(file.read_text())
