"""A file ingested as Compact in a real cgroup: what is written must not grow in memory first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.compact_folder import clustered_vectors
from membudget_engine.index.generations import find_newest_generation
from memory_cgroup import memory_cgroup

MIB = 1024 * 1024
ROWS = int(os.environ.get("MEMBUDGET_COMPACT_ROWS", "8000"))
"""60,000 were killed while codes grew in memory: `make torture` ingests as many."""
DIMENSION = 512
LIMIT = 64 * MIB


@pytest.mark.cgroup
def test_a_file_becomes_a_compact_collection_inside_the_limit(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E01, R-E16: 40 of 64 MB granted to the build, 21 are the bare process."""
    file = tmp_path / "rows.npy"
    np.save(file, clustered_vectors(ROWS, DIMENSION, seed=1))
    argv = [sys.executable, "-m", "membudget_engine", "build", "--data", str(tmp_path / "data"), "--memory", "40Mi"]
    argv += ["--source", f"core={file}", "--representation", "core=Compact"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    with memory_cgroup(LIMIT) as cgroup:
        process = cgroup.run(argv, stderr=subprocess.PIPE, text=True, env=one_thread)
        _, log = process.communicate()
        kills, peak = cgroup.oom_kills(), cgroup.peak_usage()

    assert (process.returncode, kills) == (0, 0), log
    found = find_newest_generation(tmp_path / "data" / "core").found
    assert found is not None
    assert found.manifest.count == ROWS
    publish(
        f"{ROWS:,} x {DIMENSION} ingested as Compact in a cgroup of {LIMIT // MIB} MB: peak {peak / MIB:.0f} MB with "
        f"page cache, recall@10 {found.manifest.recall:.3f}"
    )
