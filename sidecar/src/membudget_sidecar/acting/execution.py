"""One action, from what the engine is asked to what its record says of it (R-S04, R-S05).

Covers: asking, the evidence around it, the judgement, the record. Does not cover when (`actions`), the readings
(`evidence`) nor what comes later (`aftermath`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import msgspec

from membudget_contract.control_api import Freed, FreeRequest, Means, budgets_of
from membudget_contract.plan import EffectivePlan
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus, Witness
from membudget_sidecar.acting.aftermath import Aftermath
from membudget_sidecar.acting.control_client import ControlClient
from membudget_sidecar.acting.engine_link import EngineLink
from membudget_sidecar.acting.evidence import Evidence, Witnessed
from membudget_sidecar.deciding.ladder_state import Decision
from membudget_sidecar.deciding.verification import judge
from membudget_sidecar.errors import EngineRefused, EngineUnreachable
from membudget_sidecar.kernel.reading import Absent, Reading

LADDER_SPILL_SECONDS: Final = 0.5
"""For a Spill of the ladder: nothing else is done meanwhile, and growth of 64 MiB/s is past a margin of 32 MiB by then.
What a slow disk has not taken is evicted next; a person who asks for a Spill waits for all of it."""
KEPT_COLLECTIONS: Final = 20
"""The largest of each action: names come from the engine, and a thousand records must stay small."""
KEPT_ERROR_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Order:
    """One action to carry out. `goal_bytes` is a signal under which it is done, however little it freed.

    `by_plan`: a Reload that nobody asked for by hand, so that it is only recorded where the plan observes.
    """

    kind: ActionKind
    plan: EffectivePlan
    asked_bytes: int
    goal_bytes: int
    cause: str
    decision: Decision | None = None
    by_plan: bool = False


Followed = tuple[Order, ActionRecord]
"""What harm is told of."""


class Execution:
    """Carries orders out, for one thread."""

    def __init__(
        self, client: ControlClient, link: EngineLink, aftermath: Aftermath[Followed], stopped: threading.Event
    ) -> None:
        self._client = client
        self._link = link
        self._aftermath = aftermath
        self._stopped = stopped

    def carry_out(self, order: Order, record: ActionRecord) -> ActionRecord:
        """Ask the engine between two readings of the same process: one that restarted has freed nothing.

        Of an action that failed the reading before stands in the record, and none after: it has freed nothing for sure.
        """
        process = self._link.process
        if process is None:
            return failed(record, "no engine was seen yet")
        witnessed = Witnessed(process, order.plan.signal, self._client.report)
        eve = self._aftermath.eve(process, self._link.report)
        try:
            freed = self._ask(order)
        except (EngineUnreachable, EngineRefused) as error:
            return failed(_with_evidence(record, witnessed.unfinished(), ActionStatus.FAILED), str(error))
        evidence = witnessed.evidence()
        lasts = order.kind is not ActionKind.CLEANUP or evidence.witness is not Witness.KERNEL
        if not lasts and judged(order, evidence) is ActionStatus.EFFECTIVE:
            # Only a Cleanup may give back mapped pages that queries touch again, so only it takes this time.
            evidence = witnessed.lasting(lambda later: judged(order, later), self._stopped)
        record = _with_evidence(_with_answer(record, freed), evidence, judged(order, evidence))
        if record.status is ActionStatus.EFFECTIVE and order.kind is not ActionKind.RESIZE:
            self._aftermath.follow((order, record), record.freed_bytes or 0, eve)
        return record

    def _ask(self, order: Order) -> Freed:
        if order.kind is ActionKind.RESIZE:
            return self._client.apply(budgets_of(order.plan))
        urgent = order.kind is ActionKind.SPILL and order.decision is not None
        request = FreeRequest(
            means=Means(order.kind.value),
            target_bytes=order.asked_bytes,
            within_seconds=LADDER_SPILL_SECONDS if urgent else None,
        )
        return self._client.free(request)


def failed(record: ActionRecord, problem: str) -> ActionRecord:
    """The record of an action that came to nothing, and why."""
    return msgspec.structs.replace(record, status=ActionStatus.FAILED, error=problem[:KEPT_ERROR_CHARACTERS])


def judged(order: Order, evidence: Evidence) -> ActionStatus:
    """By the signal and its goal; by the engine's report its own bytes alone, which no goal of the signal is about."""
    goal = order.goal_bytes if evidence.witness is Witness.KERNEL else 0
    return judge(order.asked_bytes, evidence.before.bytes, evidence.after.bytes, goal)


def _with_answer(record: ActionRecord, freed: Freed) -> ActionRecord:
    largest = sorted(freed.collections.items(), key=lambda item: item[1], reverse=True)[:KEPT_COLLECTIONS]
    return msgspec.structs.replace(
        record,
        owned_before_bytes=freed.owned_before_bytes,
        owned_after_bytes=freed.owned_after_bytes,
        entries=freed.entries,
        candidates=freed.candidates,
        exhausted=freed.exhausted,
        collections=dict(largest),
        error=freed.problem[:KEPT_ERROR_CHARACTERS] if freed.problem else None,
    )


def _with_evidence(record: ActionRecord, evidence: Evidence, status: ActionStatus) -> ActionRecord:
    return msgspec.structs.replace(
        record,
        status=status,
        signal_before_bytes=_known(evidence.before.bytes),
        signal_after_bytes=_known(evidence.after.bytes),
        signal_source=evidence.before.source,
        verified_by=evidence.witness,
    )


def _known(reading: Reading) -> int | None:
    return None if isinstance(reading, Absent) else reading
