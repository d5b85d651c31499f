"""Known bug 20 of the fault catalogue: a suite reported green with every test skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALL_SKIPPED = "import pytest\n\ndef test_nothing():\n    pytest.skip('nothing here')\n"
NEEDS_MORE = "from memory_cgroup import require\n\ndef test_it():\n    require(False, 'the machine lacks it')\n"
ONE_RAN = "def test_it():\n    pass\n"


def _run(folder: Path, content: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A pytest run of its own with this repository's conftest."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "memory_cgroup.py").write_text((ROOT / "tests" / "memory_cgroup.py").read_text())
    (folder / "test_it.py").write_text(content)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REQUIRE_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", str(folder)],
        cwd=folder, env=kept | {"PYTHONPATH": str(folder)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_run_that_skipped_every_test_is_no_success(tmp_path: Path) -> None:
    """Known bug 20: exit code 1, and the summary says why."""
    run = _run(tmp_path, ALL_SKIPPED)
    assert (run.returncode, "all 1 tests were skipped" in run.stdout) == (1, True)


def test_a_run_in_which_something_ran_is_a_success(tmp_path: Path) -> None:
    """Known bug 20: the guard leaves honest runs alone."""
    assert _run(tmp_path, ONE_RAN).returncode == 0


@pytest.mark.parametrize(("required", "outcome"), [("1", "1 failed"), ("0", "1 skipped")])
def test_what_the_machine_lacks_fails_under_require_and_is_told_without(
    tmp_path: Path, required: str, outcome: str
) -> None:
    """Known bug 20: CI sets REQUIRE_CGROUP=1, where a skip is a failure."""
    run = _run(tmp_path, NEEDS_MORE, REQUIRE_CGROUP=required)
    assert (outcome in run.stdout, "the machine lacks it" in run.stdout) == (True, True)


def test_torture_runs_the_tests_of_faults_as_often_as_it_asks_and_no_others(tmp_path: Path) -> None:
    """Each fault of the catalogue twenty times: a test says in its docstring which it is of."""
    content = f'{ONE_RAN}\n\ndef test_fault():\n    """R-E13, fault 71: said here."""\n'
    outcomes = [_run(tmp_path, content, MEMBUDGET_FAULT_RUNS=runs).stdout for runs in ("0", "3")]
    assert ["2 passed" in outcomes[0], "3 passed, 1 deselected" in outcomes[1]] == [True, True]


def test_ci_sets_the_require_variables() -> None:
    """Known bug 20: nothing is skipped silently in CI."""
    names = ("CGROUP", "CLUSTER", "EMULATED", "PROMETHEUS", "BROWSER")
    assert "export " + " ".join(f"REQUIRE_{name}=1" for name in names) in (ROOT / ".ci" / "run").read_text()
