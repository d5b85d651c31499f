"""How an action is judged by what the kernel said before and after it (R-S04, R-S06).

Pure. Does not read (`engine_process`) and does not act (`actions`).
"""

from __future__ import annotations

from typing import Final

from membudget_contract.sidecar_api import ActionStatus
from membudget_sidecar.reading import Absent, Reading

WORTH: Final = 0.5
"""An action that freed less than half of what was asked did not do its work: the next rung runs."""


def judge(asked_bytes: int, before: Reading, after: Reading, goal_bytes: int) -> ActionStatus:
    """Effective or ineffective, done when nothing was asked, or unverified when one of the readings is missing.

    Args:
        asked_bytes: what was to be freed; 0 asks for nothing in particular, so no fall of the signal proves anything.
        before: the signal before.
        after: the signal after.
        goal_bytes: a signal under which the work is done, however little was freed.
    """
    if isinstance(before, Absent) or isinstance(after, Absent):
        return ActionStatus.UNVERIFIED
    if asked_bytes == 0:
        return ActionStatus.DONE
    if after < goal_bytes or before - after >= WORTH * asked_bytes:
        return ActionStatus.EFFECTIVE
    return ActionStatus.INEFFECTIVE
