"""From a value in the plan to one reload of the engine (R-P09).

Covers: when the plan asks for a Reload, and remembering which value was asked for last, over restarts of this process.
Does not carry it out (`upkeep`). For one thread.

Invariant: each value that is another than the last one is asked for once, and again only when this process ended before
the reload did. It is over however it ended: an engine that failed keeps what it had, one that restarted loaded anew.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from membudget_contract.kept_file import KeptFileInvalid, read_kept, write_kept
from membudget_contract.plan import EffectivePlan, Message
from membudget_contract.sidecar_api import ActionKind
from membudget_sidecar.acting.execution import Order

KEPT_RELOAD: Final = "reload.kept"

log = logging.getLogger(__name__)


class KeptReload(Message, frozen=True, kw_only=True):
    """What the file holds: the value that was asked for last."""

    index: str


class ReloadFollower:
    """Without a state folder the last value is forgotten with this process, and asked for once more by the next."""

    def __init__(self, state_folder: Path | None) -> None:
        self._file = state_folder / KEPT_RELOAD if state_folder else None
        self._asked = self._resumed()

    def reload(self, plan: EffectivePlan, *, engine_is_there: bool) -> Order | None:
        """The Reload to submit now: when the plan in force has a value that was not asked for last."""
        wanted = plan.reload_index
        if wanted is None or wanted == self._asked or not engine_is_there:
            return None
        self._asked = wanted
        return Order(ActionKind.RELOAD, plan, 0, 0, f"the plan asks to reload the index: {wanted}", by_plan=True)

    def ended(self, order: Order) -> None:
        """A Reload of the plan ended, however it did."""
        if self._file is None or order.plan.reload_index is None:
            return
        try:
            write_kept(self._file, KeptReload(index=order.plan.reload_index))
        except OSError as error:
            log.warning("a restart will ask to reload once more, %s was not written: %s", self._file, error.strerror)

    def _resumed(self) -> str | None:
        if self._file is None:
            return None
        try:
            kept = read_kept(self._file, KeptReload)
        except KeptFileInvalid as error:
            log.warning("the index may be reloaded once more: %s", error)
            return None
        return None if kept is None else kept.index
