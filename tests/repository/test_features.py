"""docs/features.md is checked by machine: what it claims has modules and tests that name the row."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEATURES = ROOT / "docs" / "features.md"
STATES = {"whole", "part", "not yet"}
_ROW = re.compile(r"^\| (R-[PSET]\d\d) \| (.+?) \| (whole|part|not yet) \| (.*?) \| (.*?) \|$", re.MULTILINE)
_NAMED = re.compile(r"R-[PSET]\d\d")


@dataclass(frozen=True)
class Row:
    """One promise."""

    identity: str
    text: str
    state: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


def _rows() -> list[Row]:
    return [
        Row(identity, text, state, _listed(modules), _listed(tests))
        for identity, text, state, modules, tests in _ROW.findall(FEATURES.read_text())
    ]


def _listed(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def _docstrings(file: Path) -> str:
    tree = ast.parse(file.read_text())
    nodes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return "\n".join(ast.get_docstring(node) or "" for node in nodes)


ROWS = _rows()


def test_the_table_has_every_row_once() -> None:
    """P01 to P15, S01 to S14, E01 to E23, T01 to T06."""
    expected = [f"R-{letter}{n:02}" for letter, last in (("P", 15), ("S", 14), ("E", 23), ("T", 6))
                for n in range(1, last + 1)]  # fmt: skip
    assert [row.identity for row in ROWS] == expected


@pytest.mark.parametrize("row", [row for row in ROWS if row.state != "not yet"], ids=lambda row: row.identity)
def test_what_is_claimed_has_modules_and_tests_that_name_it(row: Row) -> None:
    """A claim without a module or a test that names it is no claim."""
    missing = [name for name in (*row.modules, *row.tests) if not (ROOT / name).exists()]
    silent = [name for name in row.tests if row.identity not in _docstrings(ROOT / name)]
    assert (bool(row.modules), bool(row.tests), missing, silent) == (True, True, [], [])


def test_every_row_that_a_test_names_is_claimed() -> None:
    """A test for a row that the table calls `not yet` means that the table is behind."""
    claimed = {row.identity for row in ROWS if row.state != "not yet"}
    named = {name for file in (ROOT / "tests").rglob("test_*.py") for name in _NAMED.findall(_docstrings(file))}
    assert sorted(named - claimed) == []
