"""The table at the end of the demo, and whether it held.

Covers: bytes by component before and after, actions with bytes as the witness read them, queries. Does not collect
(`run`).
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from membudget_cli.demo.witness import Witness
from membudget_cli.figures import mebibytes, milliseconds
from membudget_contract.sidecar_api import ActionRecord, Status


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the run: the status at its end, and what the agents saw."""

    status: Status
    resident_bytes: int | None
    peak_bytes: int | None
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole run."""

    before: Half
    after: Half
    actions: tuple[ActionRecord, ...]
    answered: int
    failed: dict[str, int]
    restarts: int

    def held(self) -> bool:
        """No query failed, nothing restarted, and each half ended inside its budget."""
        inside = all(
            half.resident_bytes is not None and half.resident_bytes < half.status.budget_bytes
            for half in (self.before, self.after)
        )
        return inside and not self.failed and self.restarts == 0


def show(console: Console, outcome: Outcome, witness: Witness) -> None:
    """Print the tables and what they show."""
    console.print(_bytes_table(outcome))
    console.print(_actions_table(outcome.actions, witness))
    console.print(f"queries answered: {outcome.answered}")
    console.print(f"queries failed: {sum(outcome.failed.values())}")
    for problem, count in outcome.failed.items():
        console.print(f"  {count} x {problem}")
    console.print(f"restarts: {outcome.restarts}")
    console.print(_meaning(outcome))


def _bytes_table(outcome: Outcome) -> Table:
    before, after = outcome.before, outcome.after
    budgets = [mebibytes(half.status.budget_bytes) for half in (before, after)]
    table = Table("", f"under {budgets[0]}", f"under {budgets[1]}", title="Bytes before and after the edit")
    for part in before.status.components:
        later = next((other for other in after.status.components if other.name == part.name), None)
        table.add_row(
            part.name,
            mebibytes(part.owned_bytes + (part.mapped_bytes or 0)),
            mebibytes(later.owned_bytes + (later.mapped_bytes or 0) if later else None),
        )
    table.add_row("working (all the rest)", *(mebibytes(_working(half)) for half in (before, after)))
    table.add_row("resident set, read by the demo", *(mebibytes(half.resident_bytes) for half in (before, after)))
    table.add_row("its peak", *(mebibytes(half.peak_bytes) for half in (before, after)))
    table.add_row("query p50", *(milliseconds(half.p50) for half in (before, after)))
    table.add_row("query p99", *(milliseconds(half.p99) for half in (before, after)))
    return table


def _working(half: Half) -> int | None:
    if half.resident_bytes is None:
        return None
    return half.resident_bytes - sum(part.owned_bytes + (part.mapped_bytes or 0) for part in half.status.components)


def _actions_table(actions: tuple[ActionRecord, ...], witness: Witness) -> Table:
    table = Table("action", "result", "asked", "freed, read by the demo", "freed, read by the sidecar", "why")
    table.title = "Actions"
    for record in actions:
        seen = None
        if record.started_at is not None and record.finished_at is not None:
            seen = witness.freed_bytes(record.started_at, record.finished_at)
        table.add_row(
            record.kind, record.status, mebibytes(record.asked_bytes), mebibytes(seen),
            mebibytes(record.freed_bytes), record.cause,
        )  # fmt: skip
    return table


def _meaning(outcome: Outcome) -> str:
    if not outcome.held():
        return "[bold red]It did not hold: see the figures above.[/]"
    return (
        "[bold green]The engine stayed inside its budget.[/] Its caches were offered more than fits and filled the "
        "room below the soft threshold (80 %); full is normal, so the ladder stayed silent. The edit of the policy "
        "file moved the budget of the running engine: it gave the bytes back, the kernel confirms it, and no query "
        "noticed."
    )
