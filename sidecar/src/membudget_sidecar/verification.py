"""How an action is judged by what the kernel said before and after it (R-S04, R-S06).

Pure. Does not read (`engine_link`) and does not act (`actions`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract.sidecar_api import ActionStatus

WORTH: Final = 0.5
"""An action that freed less than half of what was asked did not do its work: the next rung runs."""


def judge(asked_bytes: int, before_bytes: int | None, after_bytes: int | None, goal_bytes: int) -> ActionStatus:
    """Effective, ineffective, or unverified when one of the readings is missing.

    Args:
        asked_bytes: what was to be freed; 0 asks for nothing in particular and is always met.
        before_bytes: the signal before, None when it could not be read.
        after_bytes: the signal after, likewise.
        goal_bytes: a signal under which the work is done, however little was freed.
    """
    if before_bytes is None or after_bytes is None:
        return ActionStatus.UNVERIFIED
    if after_bytes < goal_bytes or before_bytes - after_bytes >= WORTH * asked_bytes:
        return ActionStatus.EFFECTIVE
    return ActionStatus.INEFFECTIVE
