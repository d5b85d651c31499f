"""The documents of a profile: every figure that was measured is in the text, and plots where matplotlib is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cli import profiles
from membudget_cli.profile.report import WITHOUT_PLOTS, markdown, write_report
from membudget_cli.profile.verdicts import verdicts

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_report_has_a_section_and_a_plot_for_each_part(tmp_path: Path) -> None:
    """R-T01: in a folder that may be docs."""
    profile = profiles.profile()
    report = write_report(profile, verdicts(profile), tmp_path)
    text = report.read_text()
    parts = ("stores", "mmap", "caches", "workload")
    assert [] == [part for part in parts if f"](images/profile-{part}.png)" not in text]
    assert {PNG} == {(tmp_path / "images" / f"profile-{part}.png").read_bytes()[:8] for part in parts}
    assert ["images", "profile.md"] == sorted(path.name for path in tmp_path.iterdir())


def test_the_report_says_where_and_how_it_was_measured() -> None:
    """R-T01: the command line, the machine and how busy it was."""
    profile = profiles.profile()
    text = markdown(profile, verdicts(profile), {})
    shown = ["`membudget profile`", "2 processors", "Linux 6.18", "Python 3.11.2", "load average 0.5", "1.5 after"]
    assert [] == [part for part in shown if part not in text]


def test_every_promise_stands_in_the_report_with_what_was_measured_and_whether_it_holds() -> None:
    """R-T01: kept, broken, and too short to say."""
    profile = profiles.profile(mmap=profiles.indexes(more=1.0), workload=profiles.workload(signal=0.5))
    found = verdicts(profile)
    rows = [line for line in markdown(profile, found, {}).splitlines() if line.startswith("| ")]
    words = {True: "yes", False: "NO", None: "too short to say"}
    assert {True, False, None} == {verdict.holds for verdict in found}
    for verdict in found:
        assert f"| {verdict.part} | {verdict.promise} | {verdict.measured} | {words[verdict.holds]} |" in rows


def test_only_measured_parts_have_sections() -> None:
    """R-T01: what was left out is not mentioned."""
    profile = profiles.profile(mmap=None, caches=None, workload=None)
    headings = [line for line in markdown(profile, verdicts(profile), {}).splitlines() if line.startswith("## ")]
    assert ["## Stores of code chunks"] == headings


def test_a_quick_run_says_that_its_figures_are_rough() -> None:
    """R-T01."""
    quick = profiles.profile(quick=True)
    assert "rough" in markdown(quick, verdicts(quick), {})
    assert "rough" not in markdown(profiles.profile(), [], {})


def test_without_matplotlib_the_report_is_written_and_says_what_to_install(tmp_path: Path) -> None:
    """R-T01: the extra `membudget-cli[profile]`, in a process that cannot import it."""
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\nfrom cli import profiles\nfrom membudget_cli.profile.report import write_report\n"
        f"write_report(profiles.profile(), [], Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1], timeout=60)
    text = (tmp_path / "profile.md").read_text()
    assert (WITHOUT_PLOTS in text, "![" in text, "membudget-cli[profile]" in text) == (True, False, True)
