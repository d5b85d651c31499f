"""Places at which a test ends this process, to prove that whatever it was doing there is finished by its successor.

Covers: the names of the places, and the environment variable that arms one. Does not cover what happens at a place, nor
the end itself (`membudget_contract.failpoint`). Neighbour: `tests/cluster/test_crash_points.py` ends a real controller
at each of them.
"""

from __future__ import annotations

import enum
import os
from typing import Final

from membudget_contract.failpoint import arm

VARIABLE: Final = "FAILPOINT"
"""Set to `name:k`, it ends the process when the place is passed for the k-th time; else `passed` does nothing."""


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


passed: Final = arm(Failpoint, os.environ.get(VARIABLE))
"""Called at each place; from any thread."""
