"""Time and chance as arguments, so that tests move them by hand.

Covers: what is handed over and the system's own. Neighbour: `__main__` hands it to the loop.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


def utc_now() -> dt.datetime:
    """For people: transition times and events."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Clocks:
    """What one loop goes by."""

    monotonic: Callable[[], float]
    """Seconds, for pauses and ages."""
    wall: Callable[[], dt.datetime]
    jitter: Callable[[], float]
    """From 0 up to 1, so that pods are not all asked in step."""


SYSTEM: Final = Clocks(time.monotonic, utc_now, random.SystemRandom().random)
