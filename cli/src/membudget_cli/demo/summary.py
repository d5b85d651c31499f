"""The table at the end of the demo, and whether it held.

Covers: bytes by component before and after, actions with bytes as the witness read them, queries. Does not collect
(`run`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from membudget_cli.figures import mebibytes, milliseconds
from membudget_cli.witness import Witness
from membudget_contract.sidecar_api import ActionKind, ActionRecord, Level, Status

SOFT_PERCENT: Final = 80
"""Where the built-in ladder begins."""


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the run: what the policy file asked for, the status at its end, and what the agents saw."""

    asked_bytes: int
    status: Status
    resident_bytes: int | None
    peak_bytes: int | None
    p50: float | None
    p99: float | None

    def settled(self) -> bool:
        """The demo itself read the engine below the soft rung of what was asked for; the ladder is at Normal."""
        soft = self.asked_bytes * SOFT_PERCENT // 100
        low = self.resident_bytes is not None and self.resident_bytes < soft and self.status.level is Level.NORMAL
        return low and self.not_taken() is None

    def not_taken(self) -> str | None:
        """That the policy file was not taken, if it was not, and why."""
        if self.status.budget_bytes == self.asked_bytes:
            return None
        reason = self.status.policy_problem or "the sidecar did not say why"
        return f"The policy of {mebibytes(self.asked_bytes)} was not taken: {reason}."


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
        """No query failed, nothing restarted, and each half ended under its policy and below its soft rung."""
        settled = all(half.settled() for half in (self.before, self.after))
        return settled and not self.failed and self.restarts == 0


def show(console: Console, outcome: Outcome, witness: Witness) -> None:
    """Print the tables and what they show."""
    console.print(_bytes_table(outcome))
    console.print(_actions_table(outcome.actions, witness))
    console.print(f"queries answered: {outcome.answered}")
    console.print(f"queries failed: {sum(outcome.failed.values())}")
    for problem, count in outcome.failed.items():
        console.print(f"  {count} x {problem}")
    console.print(f"restarts: {outcome.restarts}")
    console.print(_meaning(outcome, witness))


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
    table = Table("action", "asked", "freed, by the demo", "freed, by the sidecar", "why", title="Actions")
    for record in actions:
        table.add_row(
            f"{record.kind}\n{record.status}", mebibytes(record.asked_bytes), mebibytes(_seen(record, witness)),
            mebibytes(record.freed_bytes), record.cause,
        )  # fmt: skip
    return table


def _meaning(outcome: Outcome, witness: Witness) -> str:
    """Sentences that follow from the figures; what did not hold is said as plainly."""
    sentences = [
        "[bold green]The engine stayed inside its budget and below the soft rung (80 %).[/]"
        if outcome.held()
        else "[bold red]It did not hold: see the figures above.[/]"
    ]
    sentences += filter(None, (half.not_taken() for half in (outcome.before, outcome.after)))
    transitions = outcome.after.status.transitions
    if transitions == 0:
        sentences.append("The ladder stayed silent: full caches are normal, admission alone kept them in their room.")
    else:
        sentences.append(f"The ladder changed its level {transitions} times.")
    resize = _edit(outcome)
    seen = _seen(resize, witness) if resize else None
    if seen is not None and seen > 0:
        sentences.append(
            f"The edit of the policy file moved the budget of the running engine; by the demo's own reading it gave "
            f"{mebibytes(seen)} back."
        )
    if not outcome.failed:
        sentences.append("No query failed.")
    return " ".join(sentences)


def _edit(outcome: Outcome) -> ActionRecord | None:
    """The Resize that the edit caused: the last one."""
    resizes = [record for record in outcome.actions if record.kind is ActionKind.RESIZE]
    return resizes[-1] if resizes else None


def _seen(record: ActionRecord, witness: Witness) -> int | None:
    if record.started_at is None or record.finished_at is None:
        return None
    return witness.freed_bytes(record.started_at, record.finished_at)
