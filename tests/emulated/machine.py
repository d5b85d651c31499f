"""A small emulated machine with a real cgroup v2, for hosts whose memory controller is still v1.

It runs over this host's own root, read-only: the same Python, the same checkout. Writable are a scratch disk and one
folder for results. Plain emulation, no KVM, no network: about ten times slower than the host, and the same everywhere.
Run as a program (`make cgroup-v2`) it fetches what is missing, and shows the inner run line by line. What it is made of
is parts.py; what it does first is init.sh.
"""

import gzip
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from emulated.parts import Parts, PartsMissing, cached_parts, fetch

REPOSITORY = Path(__file__).parents[2]
INIT = Path(__file__).with_name("init.sh")
SELECTION = (
    "tests/sidecar/test_live_kernel.py",
    "tests/sidecar/test_live_limit.py",
    "tests/sidecar/test_live_budget.py",
    "tests/sidecar/test_live_waking.py",
    "tests/sidecar/test_cgroup_faults.py",
    "tests/sidecar/test_memory_cgroup.py",
    "tests/emulated/test_lower_limit.py",
)
"""What is run inside: all of it that is marked `cgroup`."""
JUNIT = "junit.xml"
INNER_SECONDS = 600  # ten times what it takes; a machine that hangs must end
_MEMORY = "1G"
_SCRATCH_BYTES = 1 << 30
_KERNEL_LINE = "console=ttyS0 quiet loglevel=3 mitigations=off panic=-1 rdinit=/init"
_INSIDE = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/mnt/tmp",
    "TMPDIR": "/mnt/tmp",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "REQUIRE_CGROUP": "1",
}


class MachineFailed(Exception):
    """It ended without saying how the command inside did, or did not end."""


def run_inside(parts: Parts, command: Sequence[str], results: Path, show: Callable[[str], None]) -> int:
    """The exit code of the command, run in the repository as root; `results` is its /mnt/results.

    Every line on the machine's console is shown as it comes.

    Raises:
        MachineFailed: there is no exit code, after at most `INNER_SECONDS`.
    """
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in _INSIDE.items())
    script = f"cd {shlex.quote(str(REPOSITORY))} && exec env -i {environment} {shlex.join(command)}\n"
    (results / "run.sh").write_text(script)
    with tempfile.TemporaryDirectory() as folder:
        scratch, first = Path(folder) / "scratch", Path(folder) / "initramfs"
        _make_scratch_disk(scratch)
        _pack_first_file_system(parts, first)
        _boot(parts, _emulator(parts, first, scratch, results), show)
    code = results / "exit_code"
    if not code.exists() or not code.read_text().strip():
        raise MachineFailed("the emulated machine ended before the command inside did; its console says why")
    return int(code.read_text())


def inner_tests(*arguments: str) -> list[str]:
    """The inner test run, with its verdicts in `JUNIT`."""
    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]  # both write beside the sources
    reports = [f"--junitxml=/mnt/results/{JUNIT}", "--basetemp=/mnt/tmp/pytest", "--timeout=120"]
    return [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "--color=no",
        *plugins,
        *reports,
        "-m",
        "cgroup",
        *arguments,
        *SELECTION,
    ]


def _make_scratch_disk(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(_SCRATCH_BYTES)
    subprocess.run([shutil.which("mkfs.ext4") or "/usr/sbin/mkfs.ext4", "-q", "-F", path], check=True)


def _pack_first_file_system(parts: Parts, path: Path) -> None:
    image = path.with_suffix(".image")
    for name in ("bin", "proc", "sys", "dev", "host"):
        (image / name).mkdir(parents=True)
    shutil.copytree(parts.modules, image / "modules")
    shutil.copy(parts.busybox, image / "bin")
    shutil.copy(INIT, image / "init")
    (image / "init").chmod(0o755)
    names = "\n".join(str(inside.relative_to(image)) for inside in sorted(image.rglob("*")))
    argv = [parts.busybox, "cpio", "-o", "-H", "newc"]
    packed = subprocess.run(argv, cwd=image, input=names.encode(), check=True, capture_output=True).stdout
    path.write_bytes(gzip.compress(packed, 1))


def _boot(parts: Parts, argv: Sequence[str], show: Callable[[str], None]) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": parts.libraries}
    with subprocess.Popen(
        argv, env=environment, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as machine:  # fmt: skip
        watchdog = threading.Timer(INNER_SECONDS, machine.kill)
        watchdog.start()
        try:
            assert machine.stdout is not None
            for line in machine.stdout:
                show(line.rstrip())
        finally:
            watchdog.cancel()
            machine.kill()


def _emulator(parts: Parts, first: Path, scratch: Path, results: Path) -> list[str]:
    share = parts.root / "usr/share"
    folder = "local,security_model=none"
    return [
        *(str(parts.qemu), "-L", str(share / "qemu"), "-L", str(share / "seabios")),
        *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", _MEMORY),
        *("-kernel", str(parts.kernel), "-initrd", str(first), "-append", _KERNEL_LINE),
        *("-drive", f"file={scratch},format=raw,if=virtio,cache=unsafe"),
        *("-virtfs", f"{folder},path=/,mount_tag=root,readonly=on,multidevs=remap"),
        *("-virtfs", f"{folder},path={results},mount_tag=results"),
    ]


def main(arguments: Sequence[str]) -> int:
    """Fetches, boots, runs, shows; arguments go to the inner pytest. Its exit code, or 1 with the reason."""
    started = time.monotonic()

    def show(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:6.1f} s  {line}\n")
        sys.stdout.flush()

    try:
        fetch(cached_parts())
        show("booting")
        with tempfile.TemporaryDirectory() as results:
            return run_inside(cached_parts(), inner_tests(*arguments), Path(results), show)
    except (PartsMissing, MachineFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
