"""The standard library as a built collection, once for all system tests."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from membudget_contract.quantities import MIB
from memory_cgroup import memory_cgroup
from resident_sampler import ResidentSampler


@dataclass(frozen=True)
class BuiltCorpus:
    """A data folder, and what building it in a cgroup of 200 MB peaked at."""

    data: Path
    peak_resident: int
    peak_usage: int
    seconds: float


@pytest.fixture(scope="session")
def built_corpus(tmp_path_factory: pytest.TempPathFactory) -> BuiltCorpus:
    """Over 10,000 chunks, built in a process of its own under the limit that serving has too."""
    data = tmp_path_factory.mktemp("corpus") / "data"
    with memory_cgroup(200 * MIB) as cgroup:
        started = time.monotonic()
        process = cgroup.run([sys.executable, "-m", "membudget_engine", "build", f"--data={data}", "--source=stdlib"])
        with ResidentSampler(process.pid) as sampler:
            code = process.wait(timeout=120)
        assert (code, cgroup.oom_kills()) == (0, 0)
        return BuiltCorpus(data, sampler.max_resident, cgroup.peak_usage(), time.monotonic() - started)
