"""How many managed bytes fit: computed from the signal, told to the runtime when it moves.

Covers: when to tell. Does not cover holding it: the runtime admits within the smaller of this figure and its own.
"""

from __future__ import annotations

import logging
from typing import Final

from membudget_contract.control_api import Room
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import Mode
from membudget_contract.quantities import MIB
from membudget_sidecar.control_client import ControlClient
from membudget_sidecar.errors import EngineRefused, EngineUnreachable

STEP_BYTES: Final = MIB
"""Less is not worth a message."""

log = logging.getLogger(__name__)


class RoomTeller:
    """Remembers what was told last."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._told: int | None = None
        self._refused = False

    def forget(self) -> None:
        """Another engine: it was told nothing."""
        self._told = None

    def tell(self, plan: EffectivePlan, unmanaged_bytes: int | None) -> None:
        """Tell the room if it moved; nothing in Observe mode, nor while the unmanaged bytes are unknown."""
        if plan.mode is Mode.OBSERVE:
            self._told = None
            return
        if unmanaged_bytes is None:
            return
        room = plan.soft_entry_bytes - plan.room_margin_bytes - unmanaged_bytes
        if self._told is not None and abs(room - self._told) <= STEP_BYTES:
            return
        try:
            self._client.tell_room(Room(room_bytes=room))
        except (EngineUnreachable, EngineRefused) as error:
            if not self._refused:
                log.warning("the room was not told: %s", error)
            self._refused = True
            return
        self._told, self._refused = room, False
