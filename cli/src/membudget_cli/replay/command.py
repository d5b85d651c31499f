"""`membudget replay`: what a policy would have done with a recorded load.

Covers: files in, tables or a document out. Exit codes: 0 done, 1 a file that cannot be used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from membudget_cli.figures import document, mebibytes
from membudget_cli.replay.comparison import Comparison, compare, deeds_of, predicted_deeds
from membudget_cli.replay.effects import Effects, learn_effects
from membudget_cli.replay.recording_file import RecordingInvalid, Session, read_recording
from membudget_cli.replay.simulation import Outcome, simulate
from membudget_contract.compile import compile_policy
from membudget_contract.errors import ContractError, PolicyInvalid
from membudget_contract.plan import EffectivePlan, Plan
from membudget_contract.recording import RecordedLook
from membudget_contract.resolve import resolve
from membudget_sidecar.plans.policy_file import PolicyFile


class Replayed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One session under one policy."""

    started_at: float
    looks: int
    first_look_at: float
    """By the clock of the actions."""
    outcome: Outcome
    comparison: Comparison | None
    """With what was really done; None under another policy, or where nothing was done."""


def show_replay(recording: Path, policy: Path | None, learn_from: Sequence[Path], output: str) -> int:
    """Replay a recording and print what would be done; returns the exit code."""
    try:
        plan = compile_policy(PolicyFile(policy).load()) if policy else None
        sessions = _sessions(recording)
        learned = [
            action for path in (*learn_from, recording) for session in _sessions(path) for action in session.actions
        ]
        effects = learn_effects(learned)
        replayed = [_replayed(session, plan, effects) for session in sessions]
    except (RecordingInvalid, ContractError) as error:
        sys.stderr.write(f"membudget: {error}\n")
        return 1
    if output != "table":
        sys.stdout.write(document(replayed, output))
        return 0
    console = Console()
    for each in replayed:
        _show(console, each)
    console.print(_effects_table(effects))
    return 0


def _sessions(path: Path) -> list[Session]:
    try:
        return read_recording(path)
    except OSError as error:
        raise RecordingInvalid(f"{path}: {error.strerror}; a sidecar writes one with --record FILE") from None
    except RecordingInvalid as error:
        raise RecordingInvalid(f"{path}, {error}") from None


def _replayed(session: Session, plan: Plan | None, effects: Effects) -> Replayed:
    outcome = simulate(session, _effective(plan, session) if plan else None, effects)
    beginning = session.first_look_at
    done = deeds_of(session, beginning)
    comparison = compare(predicted_deeds(outcome.actions, beginning), done) if done and plan is None else None
    return Replayed(
        started_at=session.started_at,
        looks=session.looks,
        first_look_at=beginning,
        outcome=outcome,
        comparison=comparison,
    )


def _effective(plan: Plan, session: Session) -> EffectivePlan:
    """The policy in bytes, with the limit that the session had."""
    limits = [step.limit_bytes for step in session.steps if isinstance(step, RecordedLook)]
    effective = resolve(plan, environment={}, limit=next((limit for limit in limits if limit is not None), None))
    for recorded in session.signals - {effective.signal}:
        problem = f"is {effective.signal}, but {recorded} was recorded: figures of two signals cannot be compared"
        raise PolicyInvalid("spec.budget.signal", problem)
    return effective


def _show(console: Console, replayed: Replayed) -> None:
    outcome = replayed.outcome
    table = Table("at", "level", "action", "asked", "freed", "result", "why", title=_title(replayed))
    for action in outcome.actions:
        table.add_row(
            f"{action.at - replayed.first_look_at:.1f} s",
            action.level,
            action.kind,
            mebibytes(action.asked_bytes),
            mebibytes(action.freed_bytes),
            action.status,
            action.cause,
        )
    console.print(table)
    if replayed.comparison is not None:
        same = replayed.comparison
        console.print(f"{same.matched} of {same.done} actions that were done are among the {same.predicted} predicted")


def _title(replayed: Replayed) -> str:
    outcome = replayed.outcome
    unknown = f", {outcome.unknown_looks} without a signal" if outcome.unknown_looks else ""
    return (
        f"{replayed.looks} looks{unknown}; peak {mebibytes(outcome.peak_bytes)}, "
        f"{outcome.transitions} transitions, {len(outcome.actions)} actions"
    )


def _effects_table(effects: Effects) -> Table:
    table = Table("action", "frees of what is asked", "takes", "from", title="what actions were taken to do")
    for kind, effect in sorted(effects.learned.items()):
        source = f"{effect.measured} carried out"
        table.add_row(kind, f"{100 * effect.share:.0f} %", f"{effect.seconds:.2f} s", source)
    for kind in sorted(effects.assumed):
        effect = effects.of(kind)
        table.add_row(kind, f"{100 * effect.share:.0f} %", f"{effect.seconds:.2f} s", "assumed, none was carried out")
    return table
