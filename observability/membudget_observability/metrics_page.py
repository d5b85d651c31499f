"""docs/metrics.md, made of the one table of metrics.

Covers: every metric with its type, unit, labels and help, by the program that exports it. Does not name any:
`membudget_contract.metric_names` does. What is a counter and what a histogram follows from the names, as Prometheus
has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from membudget_contract import metric_names
from membudget_contract.metric_names import Metric

FILE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
HISTOGRAMS: Final = frozenset({
    metric_names.ENGINE_QUERY_SECONDS,
    metric_names.CONTROLLER_PUSH_SECONDS,
    metric_names.CONTROLLER_RECONCILE_SECONDS,
})  # fmt: skip
UNITS: Final = ("bytes", "seconds", "ratio")
EXPORTERS: Final = {
    "Sidecar": "Port 9465 of the pod, `/metrics`; at most 500 series whatever the engine reports",
    "Engine": "The engine's own port, `/metrics`; at most 500 series whatever its data folder holds",
    "Controller": "Port 9466, `/metrics`; a few dozen series whatever the cluster holds",
}
_PREFIXES: Final = {"ENGINE_": "Engine", "CONTROLLER_": "Controller"}
_OPENING: Final = """\
# Metrics

Generated from `contract/src/membudget_contract/metric_names.py` by `make observability`. Do not edit.

Base units, ratios from 0 to 1. A figure that is not known is no series, never 0. Labels have bounded values: no pid, no
session, no query. What to make of them: [observability.md](observability.md).
"""


def metrics_of(exporter: str) -> list[Metric]:
    """What one of `EXPORTERS` exports, in the order of the table."""
    named = {name: value for name, value in vars(metric_names).items() if isinstance(value, Metric)}
    return [metric for name, metric in named.items() if _exporter(name) == exporter]


def kind(metric: Metric) -> str:
    """Prometheus' word for it."""
    if metric in HISTOGRAMS:
        return "histogram"
    return "counter" if metric.name.endswith("_total") else "gauge"


def unit(metric: Metric) -> str:
    """Of its values; a number of things or a state has none."""
    words = metric.name.removesuffix("_total").split("_")
    return words[-1] if words[-1] in UNITS else ""


def rendered() -> str:
    """The page."""
    return "\n".join([_OPENING, *map(_section, EXPORTERS)])


def _exporter(constant: str) -> str:
    if constant == "ENGINE_UP":
        return "Sidecar"  # which asks the engine
    return next((exporter for prefix, exporter in _PREFIXES.items() if constant.startswith(prefix)), "Sidecar")


def _section(exporter: str) -> str:
    lines = [
        f"## {exporter}",
        "",
        f"{EXPORTERS[exporter]}.",
        "",
        "| name | type | unit | labels | meaning |",
        "|---|---|---|---|---|",
    ]
    for metric in metrics_of(exporter):
        labels = " ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {kind(metric)} | {unit(metric)} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
