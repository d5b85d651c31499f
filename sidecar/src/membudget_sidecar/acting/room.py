"""How many managed bytes fit: computed from the signal, told to the runtime at every full look.

Covers: when to tell. Does not cover holding it: the runtime admits within the smaller of this figure and its own.
Told again though it did not move: what else is charged to the engine's cgroup the runtime learns from here alone, and
a figure of a minute ago is no news of that.
"""

from __future__ import annotations

import logging

from membudget_contract.control_api import Room
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import Mode
from membudget_sidecar.acting.control_client import ControlClient
from membudget_sidecar.errors import EngineRefused, EngineUnreachable

log = logging.getLogger(__name__)


class RoomTeller:
    """Says once that the room could not be told."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._refused = False

    def tell(self, plan: EffectivePlan, unmanaged_bytes: int | None) -> None:
        """Tell the room; nothing in Observe mode, nor while the unmanaged bytes are unknown."""
        if plan.mode is Mode.OBSERVE or unmanaged_bytes is None:
            return
        room = plan.soft_entry_bytes - plan.room_margin_bytes - unmanaged_bytes
        try:
            self._client.tell_room(Room(room_bytes=room))
        except (EngineUnreachable, EngineRefused) as error:
            if not self._refused:
                log.warning("the room was not told: %s", error)
            self._refused = True
            return
        self._refused = False
