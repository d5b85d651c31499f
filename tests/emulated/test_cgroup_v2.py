import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from emulated.machine import JUNIT, REPOSITORY, SELECTION, MachineFailed, inner_tests, run_inside
from emulated.requirement import find_parts

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(900)]


def verdicts(junit: Path) -> dict[str, str]:
    """Test -> passed, failure, error or skipped, as the inner run wrote it down."""
    found: dict[str, str] = {}
    for case in ET.parse(junit).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}]
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return found


def expected_tests() -> set[str]:
    """What is marked `cgroup` in the selection, as collected on this machine."""
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "cgroup", *SELECTION]
    listed = subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return {line.replace("/", ".").replace(".py::", "::") for line in listed.splitlines() if "::" in line}


def shown(line: str) -> None:
    """The machine's console, which pytest shows when the test fails."""
    sys.stdout.write(f"{line}\n")


def test_every_cgroup_test_passes_on_a_real_cgroup_v2(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-S01, R-P03: each of them ran inside, none was skipped, none failed; a run without tests is no success."""
    parts = find_parts()
    expected = expected_tests()
    started = time.monotonic()
    code = run_inside(parts, inner_tests(), tmp_path, shown)
    seconds = time.monotonic() - started
    found = verdicts(tmp_path / JUNIT)
    assert (code, found) == (0, dict.fromkeys(expected, "passed"))
    assert {f"{name.replace('/', '.')}" for name in SELECTION} == {f"{name.partition('::')[0]}.py" for name in found}
    publish(
        f"cgroup v2, emulated ({parts.kernel.name}): {len(found)} tests passed in {seconds:.0f} s, booting included"
    )


def test_the_machine_tells_exit_codes_and_leaves_the_host_alone(tmp_path: Path) -> None:
    """The oracle of the test above: a failure inside is a failure here, and root is read-only there."""
    code = run_inside(find_parts(), ["/bin/sh", "-c", "touch pyproject.toml || exit 7"], tmp_path, shown)
    assert code == 7


def test_a_machine_that_dies_is_no_success(tmp_path: Path) -> None:
    """Known bug 20: switched off in the middle, it leaves no exit code, and that is said."""
    crash = ["/bin/sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"]
    with pytest.raises(MachineFailed, match="ended before the command inside did"):
        run_inside(find_parts(), crash, tmp_path, shown)
