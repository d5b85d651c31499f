"""Failpoints end the process at the pass that was asked for, and do nothing else."""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys

import pytest

from membudget_contract.failpoint import arm
from membudget_controller import failpoints as of_the_controller
from membudget_engine import failpoints as of_the_engine

SCRIPT = """
import enum
import sys
from membudget_contract.failpoint import arm

class Step(enum.StrEnum):
    LISTED = "listed"
    PUSHED = "pushed"
    PATCHED = "patched"

passed = arm(Step, sys.argv[1] if len(sys.argv) > 1 else None)
for number in range(3):
    passed(Step.LISTED)
    passed(Step.PUSHED)
    sys.stdout.write(f"{number} ")
    sys.stdout.flush()
"""


class Step(enum.StrEnum):
    """Two places."""

    LISTED = "listed"
    PUSHED = "pushed"


def ended(*argv: str, variables: dict[str, str] | None = None) -> tuple[int, str]:
    """How a script ended, and what it had said by then."""
    environment = os.environ | (variables or {})
    done = subprocess.run([sys.executable, "-c", *argv], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ([], (0, "0 1 2 ")),
        (["pushed:1"], (-signal.SIGKILL, "")),
        (["pushed:3"], (-signal.SIGKILL, "0 1 ")),
        (["patched:1"], (0, "0 1 2 ")),
    ],
)
def test_the_process_ends_at_the_named_pass_and_only_there(setting: list[str], expected: tuple[int, str]) -> None:
    """By SIGKILL, and only where it was armed."""
    assert ended(SCRIPT, *setting) == expected


@pytest.mark.parametrize("setting", ["nowhere:1", "listed", "listed:0", "listed:-1", "listed:x", ""])
def test_a_setting_that_would_never_end_anything_is_an_error(setting: str) -> None:
    """Else a crash test passes without a crash."""
    with pytest.raises(ValueError):  # noqa: PT011  three sources of it, all say what is wrong
        arm(Step, setting)


@pytest.mark.parametrize(
    ("member", "variable", "place"),
    [
        ("controller", of_the_controller.VARIABLE, of_the_controller.Failpoint.BEFORE_PUSH),
        ("engine", of_the_engine.VARIABLE, of_the_engine.Failpoint.APPLIED),
    ],
)
def test_each_member_arms_its_places_by_its_own_variable(member: str, variable: str, place: enum.StrEnum) -> None:
    """And goes on where only the other's is set."""
    script = f"""
from membudget_{member}.failpoints import Failpoint, passed
for _ in range(2):
    passed(Failpoint("{place}"))
    print("passed")
"""
    others = {"controller": of_the_engine, "engine": of_the_controller}[member]
    armed = ended(script, variables={variable: f"{place}:2"})
    other = ended(script, variables={others.VARIABLE: f"{next(iter(others.Failpoint))}:1"})
    assert (armed[0], other) == (-signal.SIGKILL, (0, "passed\npassed\n"))


def test_there_are_places_for_every_step_of_the_controllers_loop() -> None:
    """Faults 24 to 31 name eight."""
    assert len(of_the_controller.Failpoint) == 10
