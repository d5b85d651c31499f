"""docs/faults.md has every case that concerns the controller, and each of its tests is there and names its case."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
CASES = {*range(1, 40), *range(89, 94), *range(96, 106)}
_NUMBERS = r"\d+(?:(?:, | and | to |-)\d+)*"
BENCHES = "benches/"


def expanded(text: str) -> set[int]:
    """`4, 7 to 9 and 12` in words or with a hyphen."""
    found: set[int] = set()
    for since, until in re.findall(r"(\d+)(?:(?: to |-)(\d+))?", text):
        found |= set(range(int(since), int(until or since) + 1))
    return found


def rows() -> list[tuple[set[int], list[str]]]:
    """Numbers and files of each row that begins with such a number."""
    lines = [line.split("|") for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    numbers = [re.match(rf" ({_NUMBERS})", line[1]) for line in lines]
    all_rows = [
        (expanded(number[1]), re.findall(r"`([^`]+)`", line[3]))
        for number, line in zip(numbers, lines, strict=True)
        if number
    ]
    return [(numbers & CASES, files) for numbers, files in all_rows if numbers & CASES]


def named(file: Path) -> set[int]:
    """The cases that the docstrings of its tests name."""
    tests = [one for one in ast.walk(ast.parse(file.read_text())) if isinstance(one, ast.FunctionDef)]
    said = " ".join((ast.get_docstring(one) or "").replace("\n", " ") for one in tests if one.name.startswith("test_"))
    return {number for numbers in re.findall(rf"[Ff]aults? ({_NUMBERS})", said) for number in expanded(numbers)}


def test_every_case_of_the_controller_is_in_the_table() -> None:
    """R-P08: none is forgotten."""
    assert set() == CASES.difference(*(numbers for numbers, _ in rows()))


@pytest.mark.parametrize(
    ("numbers", "files"), rows(), ids=lambda value: "" if isinstance(value, list) else str(min(value))
)
def test_the_tests_of_a_case_are_there_and_name_it(numbers: set[int], files: list[str]) -> None:
    """R-P08: each file has a test of the row, and together they have all of it."""
    tests = [named(ROOT / file) for file in files if not file.startswith(BENCHES)]
    assert [True] * len(tests) == [bool(numbers & cases) for cases in tests]
    assert set() == numbers.difference(*tests)
