"""Places at which a test ends this process, to prove that whatever it was doing there is finished by its successor.

Covers: the names of the places, and the end: SIGKILL, because whoever loses power gets no time for a word. Armed only
by the environment variable FAILPOINT=name:k, which ends the process when the place is passed for the k-th time; else
`passed` does nothing. Does not cover what happens at a place. Neighbour: `tests/cluster/test_crash_points.py` ends a
real controller at each of them.
"""

from __future__ import annotations

import enum
import itertools
import os
import signal
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "FAILPOINT"


class Failpoint(enum.StrEnum):
    """In the order in which a controller comes by."""

    BEFORE_EPOCH_SWAP = "before-epoch-swap"
    """The Secret was read, the new epoch not yet written."""
    AFTER_EPOCH_SWAP = "after-epoch-swap"
    """The epoch stands in the Secret, and no order bears it."""
    INDEX_HALF_BUILT = "index-half-built"
    """Policies are listed, pods are not."""
    AFTER_LIST = "after-list"
    BEFORE_KEY_PUBLICATION = "before-key-publication"
    """A namespace needs the public key and does not have it yet."""
    BEFORE_PUSH = "before-push"
    """An order is numbered and not sent."""
    AFTER_PUSH = "after-push"
    """k orders of a fan-out were answered."""
    BEFORE_RECORD = "before-record"
    """An acknowledgement arrived and is not taken down."""
    BEFORE_STATUS_PATCH = "before-status-patch"
    AFTER_STATUS_PATCH = "after-status-patch"
    """The status is written; its events are not."""


def arm(setting: str | None) -> Callable[[Failpoint], None]:
    """What is called at each place.

    Args:
        setting: `name:k`; None arms nothing.

    Raises:
        ValueError: there is no such place, or k is no whole number from 1: a test must not pass for want of a crash.
    """
    if setting is None:
        return _go_on
    name, _, count = setting.partition(":")
    armed, last = Failpoint(name), int(count)
    if last < 1:
        raise ValueError(f"{VARIABLE}={setting}: a place is passed for the first time, not for the {last}th")
    passes = itertools.count(1)

    def end_at_last(place: Failpoint) -> None:
        if place is armed and next(passes) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return end_at_last


def _go_on(_: Failpoint) -> None:
    pass


passed: Final = arm(os.environ.get(VARIABLE))
"""Called at each place; from any thread."""
