"""Places at which a test ends this process, to prove that whatever it was doing there is finished by its successor.

Covers: which passing of which place is the last, and the end: SIGKILL, because whoever loses power gets no time for a
word. Does not cover the places, nor who arms them: each member that has some names them and its environment variable
in its own `failpoints`.
"""

from __future__ import annotations

import enum
import itertools
import os
import signal
from collections.abc import Callable
from typing import TypeVar

Place = TypeVar("Place", bound=enum.StrEnum)


def arm(places: type[Place], setting: str | None) -> Callable[[Place], None]:
    """What is called at each place, from any thread.

    Args:
        places: all there are.
        setting: `name:k` ends the process when that place is passed for the k-th time; None arms nothing.

    Raises:
        ValueError: there is no such place, or k is no whole number from 1: a test must not pass for want of a crash.
    """
    if setting is None:
        return _go_on
    name, _, count = setting.partition(":")
    armed, last = places(name), int(count)
    if last < 1:
        raise ValueError(f"{setting}: a place is passed for the first time, not for the {last}th")
    passes = itertools.count(1)

    def end_at_last(place: Place) -> None:
        if place is armed and next(passes) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return end_at_last


def _go_on(_: enum.StrEnum) -> None:
    pass
