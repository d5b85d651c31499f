"""`membudget explain`: why a sidecar acts or does not, and where each value of its plan comes from.

Covers: one sidecar, here or in a pod. Exit code 0, or 1 when nobody answers.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from membudget_cli.figures import document, mebibytes, whole_seconds
from membudget_cli.sidecar_client import SidecarClient, SidecarUnreachable
from membudget_contract.explanation import Explanation
from membudget_contract.sidecar_api import PlanView


def show_explanation(client: SidecarClient, output: str) -> int:
    """Print the ladder's reasons and the plan's layers, as tables or as a document; returns the exit code."""
    try:
        explanation, plan = client.explanation(), client.plan()
    except SidecarUnreachable as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if output != "table":
        sys.stdout.write(document({"explanation": explanation, "plan": plan}, output))
        return 0
    console = Console()
    console.print(_summary(explanation), highlight=False)
    console.print(_rungs_table(explanation))
    console.print(_layers_table(plan))
    return 0


def _summary(explanation: Explanation) -> str:
    limit = mebibytes(explanation.limit_bytes)
    evictable, unmanaged = mebibytes(explanation.evictable_bytes), mebibytes(explanation.unmanaged_bytes)
    lines = [
        explanation.reason,
        f"signal   {mebibytes(explanation.signal_bytes)}, {explanation.signal_source or 'not read'}",
        f"limit    {limit}, met in {whole_seconds(explanation.seconds_to_limit)}",
        f"owned    {evictable} can be evicted; {unmanaged} nobody manages",
        f"level    {explanation.level} ({explanation.mode})",
    ]
    return "\n".join(lines)


def _rungs_table(explanation: Explanation) -> Table:
    table = Table("rung", "action", "enters at", "leaves below", "why")
    collect = explanation.collect
    table.add_row("Collect", "Collect", mebibytes(collect.entry_bytes), "-", collect.reason)
    for rung in explanation.rungs:
        entries, releases = (
            "\n".join(mebibytes(figure) for figure in figures)
            for figures in (
                [distance.entry_bytes for distance in rung.distances],
                [distance.release_bytes for distance in rung.distances],
            )
        )
        waits = "" if rung.waits_seconds is None else f" (in {whole_seconds(rung.waits_seconds)})"
        table.add_row(rung.level, rung.action, entries, releases, rung.reason + waits)
    return table


def _layers_table(view: PlanView) -> Table:
    """What somebody set; everything else is the profile's."""
    table = Table("of the plan", "set by")
    for path, layer in sorted(view.plan.layers.items()):
        table.add_row(path, layer)
    return table
