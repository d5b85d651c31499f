import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membudget_sidecar.kernel.process import Process, ProcessIdentity, ProcessReading
from membudget_sidecar.kernel.reading import Absent, Reading
from memory_cgroup import require
from sidecar.kernel_tree import MB, PID, PROCESS, SMAPS_ROLLUP, START_TICKS, STAT, STATM, STATUS, Tree, build

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def recorded(proc: Path, **changed: str) -> Process:
    """The recorded process, with other contents for some of its files."""
    build(proc, {str(PID): {**PROCESS, **changed}})
    return Process(proc, PID)


def test_status_and_stat_give_every_figure_in_bytes(tmp_path: Path) -> None:
    """R-S01: RSS, anonymous, file, shmem, swap, faults; R-S02: stack, code, libraries."""
    directory = tmp_path / str(PID)
    expected = ProcessReading(
        source=f"{directory}/status, {directory}/stat",
        resident=80 * MB,
        anonymous=40 * MB,
        file=30 * MB,
        shmem=10 * MB,
        page_tables=1 * MB,
        swap=0,
        data=50000 * 1024,
        stack=132 * 1024,
        code=20 * 1024,
        libraries=20 * MB,
        minor_faults=1500,
        major_faults=7,
        threads=9,
        cpu_milliseconds=300 * 1000 // os.sysconf("SC_CLK_TCK"),
    )
    assert recorded(tmp_path).read() == expected


def test_the_fast_path_reads_statm(tmp_path: Path) -> None:
    """R-S01: residency by one short file."""
    process = recorded(tmp_path)
    assert (process.resident_bytes(), process.resident_source) == (20480 * PAGE_BYTES, f"{tmp_path}/{PID}/statm")


def test_proportional_bytes_come_from_smaps_rollup(tmp_path: Path) -> None:
    """R-S01: PSS where it is readable."""
    process = recorded(tmp_path)
    expected = (60 * MB, f"{tmp_path}/{PID}/smaps_rollup")
    assert (process.proportional_bytes(), process.proportional_source) == expected


def test_a_command_with_spaces_and_parentheses_does_not_shift_the_fields(tmp_path: Path) -> None:
    """R-S01: a process may name itself `(a) b (c d`."""
    assert recorded(tmp_path).identity == ProcessIdentity(PID, START_TICKS)


def test_a_reused_pid_makes_every_figure_absent(tmp_path: Path) -> None:
    """R-S01: another process' figures are worse than none."""
    process = recorded(tmp_path)
    (tmp_path / str(PID) / "stat").write_text(STAT.replace(str(START_TICKS), "200000"))
    another = Absent(
        f"the process with pid {PID} is another one since tick 200000; the one meant started at tick {START_TICKS}"
    )
    assert figures(process) == {another}


def test_a_process_that_never_was_is_absent_and_the_reason_names_the_file(tmp_path: Path) -> None:
    """R-S01: ENOENT is a reason, not a zero."""
    assert figures(Process(tmp_path, PID)) == {Absent(f"{tmp_path}/{PID}/stat: No such file or directory")}


def test_one_unreadable_file_leaves_the_figures_of_the_other(tmp_path: Path) -> None:
    """R-S01: absence is per figure."""
    process = recorded(tmp_path)
    (tmp_path / str(PID) / "status").unlink()
    reading = process.read()
    expected = (Absent(f"{tmp_path}/{PID}/status: No such file or directory"), 7)
    assert (reading.resident, reading.major_faults) == expected


def test_a_zombie_has_no_resident_bytes_rather_than_none_at_all(tmp_path: Path) -> None:
    """R-S01: statm of a zombie says 0, which is not a figure."""
    process = recorded(tmp_path, statm="0 0 0 0 0 0 0\n", status="State:\tZ (zombie)\n")
    expected = (
        Absent(f"{tmp_path}/{PID}/statm: the process has no memory any more"),
        Absent(f"{tmp_path}/{PID}/status: no figure VmRSS"),
    )
    assert (process.resident_bytes(), process.read().resident) == expected


@pytest.mark.parametrize("content", ["", "65536", "65536 many", "65536 -1 0"])
def test_a_truncated_or_wrong_statm_is_absent(tmp_path: Path, content: str) -> None:
    """R-S01: garbage is a reason, not a zero."""
    expected = Absent(f"{tmp_path}/{PID}/statm: not the seven numbers of statm: {content!r}")
    assert recorded(tmp_path, statm=content).resident_bytes() == expected


def test_a_truncated_stat_is_no_identity_and_no_figure(tmp_path: Path) -> None:
    """R-S01: without a start time the pid may be anyone's."""
    assert figures(recorded(tmp_path, stat=STAT[:30])) == {Absent(f"{tmp_path}/{PID}/stat: no number in field 22")}


mutilated = st.one_of(
    st.text(),
    *(
        st.integers(min_value=0, max_value=len(text)).map(lambda end, text=text: text[:end])
        for text in (STAT, STATM, STATUS, SMAPS_ROLLUP)
    ),
)


@given(stat=st.one_of(st.just(STAT), mutilated), statm=mutilated, status=mutilated, smaps=mutilated)
def test_no_content_of_proc_raises(stat: str, statm: str, status: str, smaps: str) -> None:
    """R-S01: absent or a number, whatever the files hold."""
    tree: Tree = {"stat": stat, "statm": statm, "status": status, "smaps_rollup": smaps}
    with tempfile.TemporaryDirectory() as directory:
        writable = {name: str(text).encode(errors="replace").decode() for name, text in tree.items()}
        build(Path(directory), {str(PID): writable})
        found = figures(Process(Path(directory), PID))
    assert [figure for figure in found if isinstance(figure, int) and figure < 0] == []


_READ_AS_NOBODY = """
import json, os, sys
from pathlib import Path
from membudget_sidecar.kernel.process import Process
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # after the imports: the interpreter may lie where nobody may look
answers = {}
for name, pid in (("own", os.getpid()), ("same user", int(sys.argv[1])), ("other user", int(sys.argv[2]))):
    process = Process(Path("/proc"), pid)
    figures = (process.resident_bytes(), process.read().anonymous, process.proportional_bytes())
    answers[name] = [figure if isinstance(figure, int) else figure.reason for figure in figures]
print(json.dumps(answers))
"""


def test_an_unprivileged_user_reads_its_own_processes_and_learns_why_not_others() -> None:
    """R-S01: PSS where it is readable; statm and status of everyone."""
    require(os.geteuid() == 0, "becoming uid 65534 needs root")
    argv = [sys.executable, "-c", _READ_AS_NOBODY]
    with subprocess.Popen(["/bin/sleep", "60"], user=65534, group=65534, extra_groups=[]) as same_user:
        pids = [str(same_user.pid), str(os.getpid())]
        found = subprocess.run([*argv, *pids], check=True, capture_output=True).stdout
        same_user.kill()
    answers: dict[str, list[int | str]] = json.loads(found)
    kinds = {name: [type(figure) for figure in figures] for name, figures in answers.items()}
    denied = f"/proc/{os.getpid()}/smaps_rollup: Permission denied"
    expected = {"own": [int] * 3, "same user": [int] * 3, "other user": [int, int, str]}
    assert (kinds, answers["other user"][2]) == (expected, denied)


def figures(process: Process) -> set[Reading]:
    """Everything that can be read of it."""
    reading = process.read()
    return {
        process.resident_bytes(),
        process.proportional_bytes(),
        reading.resident,
        reading.anonymous,
        reading.file,
        reading.shmem,
        reading.page_tables,
        reading.swap,
        reading.data,
        reading.stack,
        reading.code,
        reading.libraries,
        reading.minor_faults,
        reading.major_faults,
        reading.threads,
        reading.cpu_milliseconds,
    }
