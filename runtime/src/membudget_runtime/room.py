"""The room: how many managed bytes fit, by this process's own reading and by what the sidecar told.

Covers: when the own signal is read again, what the sidecar's figure corrects of it and for how long, the smaller of the
two (docs/decisions/0002). Does not cover what is held in the room, nor who gives way for whom (`ledger`, whose lock
guards this), nor the kernel's figures themselves (`own_memory`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from membudget_contract.policy import Signal
from membudget_runtime.bounds import Bounds
from membudget_runtime.own_memory import OwnMemory

READ_AGAIN_BYTES: Final = 1024 * 1024
READ_AGAIN_SECONDS: Final = 0.1
ROOM_FRESH_SECONDS: Final = 2.0
"""How long the sidecar's figure of the room counts by itself."""
ROOM_OFFSET_SECONDS: Final = 15.0
"""How long the own room is corrected by what the sidecar saw more: a look below 70 % comes every 10 s."""


@dataclass(frozen=True, slots=True)
class _Told:
    """The room the sidecar told, and the own one at that moment."""

    at: float
    told_bytes: int
    own_bytes: int | None

    def room_bytes(self, own_now: int | None, now: float, signal: Signal) -> int | None:
        """What holds now (docs/decisions/0002)."""
        age = now - self.at
        told = self.told_bytes if age <= ROOM_FRESH_SECONDS else None
        own = None if own_now is None else own_now - (self._offset(signal) if age <= ROOM_OFFSET_SECONDS else 0)
        if own is None or (told is not None and signal is Signal.WORKING_SET):
            return told
        return own if told is None else min(own, told)

    def _offset(self, signal: Signal) -> int:
        """Unmanaged bytes that the sidecar saw and the own reading did not."""
        if self.own_bytes is None:
            return 0
        more = self.own_bytes - self.told_bytes
        # The resident set is no bound of the working set: it may as well show more.
        return more if signal is Signal.WORKING_SET else max(0, more)


class Room:
    """The room under given bounds; `charged_bytes` are the managed ones that the signal holds. Not thread-safe."""

    def __init__(self, memory: OwnMemory, charged_bytes: Callable[[], int], clock: Callable[[], float]) -> None:
        self.admitted_bytes = READ_AGAIN_BYTES
        """Since the own reading: who admits adds to it."""
        self._memory = memory
        self._charged_bytes = charged_bytes
        self._clock = clock
        self._read_at = -READ_AGAIN_SECONDS
        self._own_room: int | None = None
        self._told: _Told | None = None

    def room_bytes(self, bounds: Bounds) -> int | None:
        """How many managed bytes fit now; None where the bounds name no target, and while neither reading is known."""
        if self.is_read_long_ago():
            self._read_own_room(bounds)
        if self._told is None or bounds.target_bytes is None:
            return self._own_room
        return self._told.room_bytes(self._own_room, self._clock(), bounds.signal)

    def is_read_long_ago(self) -> bool:
        """Whether the own reading does not count any more."""
        return self.admitted_bytes >= READ_AGAIN_BYTES or self._clock() - self._read_at >= READ_AGAIN_SECONDS

    def read_again(self) -> None:
        """Before the room is told next."""
        self.admitted_bytes = READ_AGAIN_BYTES

    def tell(self, room_bytes: int, bounds: Bounds) -> None:
        """The sidecar's figure, which sees memory that this process cannot."""
        self._read_own_room(bounds)
        self._told = _Told(self._read_at, room_bytes, self._own_room)

    def forget(self) -> None:
        """Both readings were for another target."""
        self._told = None
        self.read_again()

    def _read_own_room(self, bounds: Bounds) -> None:
        self._read_at, self.admitted_bytes = self._clock(), 0
        if bounds.target_bytes is None:
            self._own_room = None
            return
        signal = self._memory.signal_bytes(bounds.signal)
        self._own_room = None if signal is None else bounds.target_bytes - (signal - self._charged_bytes())
