"""What a compact index costs, as other processes and the kernel see it: anonymous bytes, pages, a cgroup's limit."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.compact_folder import CompactFolder, make_compact_folder
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.manifest import ROWS_FILE
from memory_cgroup import memory_cgroup
from page_cache import pages_in_memory

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CompactFolder:
    """20,000 vectors of 128: 1 MB of codes, 5 MB of rows, 141 lists."""
    return make_compact_folder(tmp_path_factory.mktemp("compact") / "generation-00000001", 20_000, 128)


_SERVING = """
import ctypes, os, sys, pathlib, faiss, numpy, numpy.random
from membudget_engine.index.compact import CompactIndex
from membudget_engine.index.manifest import read_manifest, verify

if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
    # A process that changed its uid may not read its own pagemap until it says that it has nothing to hide.
    assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
directory = pathlib.Path(sys.argv[1])
manifest = read_manifest(directory)
verify(directory, manifest)
faiss.omp_set_num_threads(1)
queries = numpy.random.default_rng(0).standard_normal((2000, manifest.dimension), dtype=numpy.float32)
numpy.ones((4, 512), dtype="f") @ numpy.ones((512, 4), dtype="f")
print("ready", flush=True); sys.stdin.readline()
index = CompactIndex.open(directory, manifest)
print(index.owned_bytes, flush=True); sys.stdin.readline()
for query in queries:
    index.search(query[None], 10)
print(index.resident_bytes(), flush=True); sys.stdin.readline()
print(index.page_out(index.mapped_bytes()), index.resident_bytes(), os.getuid(), flush=True)
"""


class _Serving:
    """A process that opens a compact index, a step at each line it is given."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def step(self) -> list[int]:
        """The figures it tells at the end of its next step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [int(figure) for figure in self.line().split()]

    def line(self) -> str:
        """What it says next."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def anonymous_bytes(self) -> int:
        """RssAnon as this process, another one, reads it."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(status.split("RssAnon:")[1].split()[0])


def test_codes_cost_what_the_ledger_is_told_as_another_process_reads_it(
    tmp_path_factory: pytest.TempPathFactory, publish: Callable[[str], None]
) -> None:
    """R-E01: anonymous bytes counted exactly; queries add next to nothing."""
    large = make_compact_folder(tmp_path_factory.mktemp("large") / "index", 60_000, 384)
    argv = [sys.executable, "-c", _SERVING, str(large.directory)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        serving = _Serving(process)
        assert serving.line() == "ready\n"
        before = serving.anonymous_bytes()
        (told,) = serving.step()
        opened = serving.anonymous_bytes() - before
        (resident,) = serving.step()
        asked = serving.anonymous_bytes() - before
        gone, left, _ = serving.step()

    publish(
        f"Compact index of 60,000 x 384 (88 MiB of float32): {opened / MIB:.1f} MiB anonymous, {told / MIB:.1f} told"
    )
    assert abs(opened - told) < 0.05 * told
    assert asked - opened < 1.5 * MIB
    assert gone == resident - left
    assert left < 20_000


@pytest.fixture
def public_folder(folder: CompactFolder) -> Iterator[Path]:
    """The index where everybody may read it and only root may write."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield shutil.copytree(folder.directory, Path(parent, "generation"))


def test_it_serves_as_nobody_in_a_real_cgroup_smaller_than_its_float32(public_folder: Path) -> None:
    """R-E01: a limit that is too small for all rows beside the process, an owner who is somebody else."""
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    for file in public_folder.iterdir():
        subprocess.run(["sync", str(file)], check=True)
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with memory_cgroup(36 * MIB) as cgroup:
        argv = [sys.executable, "-c", _SERVING, str(public_folder), nobody]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = cgroup.run(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        serving = _Serving(process)
        assert serving.line() == "ready\n"
        serving.step()
        (resident,) = serving.step()
        gone, left, uid = serving.step()

        assert uid == int(nobody)
        assert resident > 0
        assert gone == resident - left
        assert left < 20_000
        assert process.wait(timeout=10) == 0
        assert cgroup.oom_kills() == 0
        assert cgroup.peak_usage() <= 36 * MIB


def test_a_query_that_opens_files_never_costs_more_than_its_rows(folder: CompactFolder) -> None:
    """R-E01: nothing beyond the pages of the compared rows becomes resident, whatever the read-ahead of the device."""
    subprocess.run(["sync", str(folder.directory / ROWS_FILE)], check=True)
    index = CompactIndex.open(folder.directory, folder.manifest)
    index.page_out(index.mapped_bytes())
    with (folder.directory / ROWS_FILE).open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = index.resident_bytes()

    index.search(folder.queries[:1], 10)
    grown = index.resident_bytes() - before
    cached = np.count_nonzero(pages_in_memory(folder.directory / ROWS_FILE))
    index.close()

    assert 0 < grown <= folder.manifest.rerank * 4096
    assert cached <= folder.manifest.rerank + 2
