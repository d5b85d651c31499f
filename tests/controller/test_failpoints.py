"""Failpoints end the process at the pass that was asked for, and do nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from membudget_controller.failpoints import Failpoint, arm

SCRIPT = """
import sys
from membudget_controller.failpoints import Failpoint, passed
for number in range(3):
    passed(Failpoint.AFTER_LIST)
    passed(Failpoint.BEFORE_PUSH)
    sys.stdout.write(f"{number} ")
    sys.stdout.flush()
"""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, (0, "0 1 2 ")),
        ({"FAILPOINT": "before-push:1"}, (-signal.SIGKILL, "")),
        ({"FAILPOINT": "before-push:3"}, (-signal.SIGKILL, "0 1 ")),
        ({"FAILPOINT": "after-status-patch:1"}, (0, "0 1 2 ")),
    ],
)
def test_the_process_ends_at_the_named_pass_and_only_there(setting: dict[str, str], expected: tuple[int, str]) -> None:
    """By SIGKILL, and only where the variable is set."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=setting, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == expected


@pytest.mark.parametrize("setting", ["nowhere:1", "after-list", "after-list:0", "after-list:x"])
def test_a_setting_that_would_never_end_anything_is_an_error(setting: str) -> None:
    """Else a crash test passes without a crash."""
    with pytest.raises(ValueError):  # noqa: PT011  three sources of it, all say what is wrong
        arm(setting)


def test_there_are_places_for_every_step_of_the_loop() -> None:
    """Faults 24 to 31 name eight."""
    assert len(Failpoint) == 10
