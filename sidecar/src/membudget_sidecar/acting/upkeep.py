"""Reload and Persist: what the engine is asked that frees nothing.

Covers: asking, and the record of what came of it. Does not cover the actions that give bytes back (`execution`).
Carried out beside their queue: a reload of a large index takes longer than an emergency may wait.
"""

from __future__ import annotations

from typing import Final

import msgspec

from membudget_contract.control_api import Persisted
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from membudget_sidecar.acting.control_client import ControlClient
from membudget_sidecar.acting.execution import Order, failed
from membudget_sidecar.errors import EngineRefused, EngineUnreachable

UPKEEP: Final = frozenset({ActionKind.RELOAD, ActionKind.PERSIST})
UPKEEP_SECONDS: Final = 60.0
"""A generation is read once from end to end before it is believed: a few GB."""


class Upkeep:
    """Carries these orders out, for one thread."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    def carry_out(self, order: Order, record: ActionRecord) -> ActionRecord:
        """Ask; Failed when the engine does not answer, refuses, or says that something of it went wrong."""
        try:
            answer = self._client.reload() if order.kind is ActionKind.RELOAD else self._client.persist()
        except (EngineUnreachable, EngineRefused) as error:
            return failed(record, str(error))
        entries = answer.entries if isinstance(answer, Persisted) else None
        record = msgspec.structs.replace(record, status=ActionStatus.DONE, entries=entries)
        return record if answer.problem is None else failed(record, answer.problem)
