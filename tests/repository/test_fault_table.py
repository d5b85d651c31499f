"""docs/faults.md names tests that are there and speak of the fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "faults.md").read_text()
ROWS = re.findall(r"^\| (\d[^|]*) \| [^|]+ \| ([^|]+) \|$", TABLE, re.MULTILINE)


@pytest.mark.parametrize("proofs", [proofs for _, proofs in ROWS], ids=[fault.partition(" ")[0] for fault, _ in ROWS])
def test_each_fault_names_tests_that_are_there(proofs: str) -> None:
    """A line without a file that exists proves nothing."""
    named = re.findall(r"`([^`]+)`", proofs)
    assert (bool(named), [name for name in named if not (ROOT / name).is_file()]) == (True, [])


def test_no_fault_stands_twice() -> None:
    """A fault that is shown is not among those that are not shown yet."""
    shown = [number for fault, _ in ROWS for number in _numbers(fault)]
    missing = [int(number) for number in re.findall(r"(\d+) \(", TABLE.rpartition("Not shown yet:")[2])]
    assert sorted(shown + missing) == sorted(set(shown + missing))


def _numbers(fault: str) -> list[int]:
    """Of `24 to 31 killed` all of them, of `97, 98 values` both."""
    span = re.match(r"(\d+) to (\d+) ", fault)
    if span:
        return list(range(int(span[1]), int(span[2]) + 1))
    listed = re.match(r"(\d+(?:, \d+)*) ", fault)
    return [int(number) for number in listed[1].split(", ")] if listed else []
