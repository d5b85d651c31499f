"""An action is judged by the kernel's figures alone (R-S04, R-S06, known bug 3)."""

import pytest

from membudget_contract.sidecar_api import ActionStatus
from membudget_sidecar.reading import Absent, Reading
from membudget_sidecar.verification import judge

GONE = Absent("the process ended")


@pytest.mark.parametrize(
    ("asked", "before", "after", "goal", "status"),
    [
        (10, 100, 90, 0, ActionStatus.EFFECTIVE),
        (10, 100, 95, 0, ActionStatus.EFFECTIVE),
        (10, 100, 96, 0, ActionStatus.INEFFECTIVE),
        (10, 100, 100, 0, ActionStatus.INEFFECTIVE),
        (10, 100, 120, 0, ActionStatus.INEFFECTIVE),
        (10, 100, 99, 100, ActionStatus.EFFECTIVE),
        (10, 100, 100, 100, ActionStatus.INEFFECTIVE),
        (0, 100, 101, 0, ActionStatus.DONE),
        (10, GONE, 90, 0, ActionStatus.UNVERIFIED),
        (10, 100, GONE, 200, ActionStatus.UNVERIFIED),
    ],
)
def test_half_of_what_was_asked_or_the_goal_is_effective(
    asked: int, before: Reading, after: Reading, goal: int, status: ActionStatus
) -> None:
    """R-S06: half is enough, the goal is enough, nothing asked is met, and unread is neither."""
    assert status == judge(asked, before, after, goal)
