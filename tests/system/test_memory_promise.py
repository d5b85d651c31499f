"""Known bug 19 cannot happen here: every figure is the kernel's, and native memory counts."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from membudget_contract.quantities import MIB
from memory_cgroup import memory_cgroup
from resident_sampler import ResidentSampler
from system.conftest import BuiltCorpus
from system.serving import ask, serving, skewed_queries, stdlib_queries

AGENTS = 20
MOST_RESIDENT = 150 * MIB
MOST_GROWTH = 5 * MIB


@pytest.mark.cgroup
def test_the_index_of_over_ten_thousand_chunks_is_built_under_the_limit_that_serves_it(
    built_corpus: BuiltCorpus, publish: Callable[[str], None]
) -> None:
    """R-E18: the builder stays alive in 200 MB; its peak is published."""
    publish(
        f"index built in {built_corpus.seconds:.1f} s, peak resident {built_corpus.peak_resident / MIB:.1f} MiB, "
        f"peak charged {built_corpus.peak_usage / MIB:.1f} MiB"
    )
    assert built_corpus.peak_resident < 200 * MIB


@pytest.mark.cgroup
def test_a_thousand_queries_from_twenty_agents_fit_into_150_mebibytes_and_ten_rounds_more_do_not_grow(
    built_corpus: BuiltCorpus, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E18: RSS from exec to exit under 150 MB in a cgroup of 200 MB, no failed query, no growth."""
    queries = stdlib_queries(2000)
    with memory_cgroup(200 * MIB) as cgroup, serving(built_corpus.data, tmp_path, cgroup.run) as stack:
        with ResidentSampler(stack.engine.pid) as sampler:
            first = ask(stack.port, skewed_queries(queries, seed=0, count=1000), AGENTS)
            ends: list[int] = []
            for number in range(1, 11):
                answered = ask(stack.port, skewed_queries(queries, seed=number, count=100), AGENTS)
                assert (answered.answers, dict(answered.failed)) == (100, {})
                ends.append(sampler.samples[-1].resident)
            peak = _peak_resident(stack.engine.pid)
            stack.engine.send_signal(signal.SIGTERM)
            assert stack.engine.wait(timeout=20) == 0
        rounds = ", ".join(f"{end / MIB:.1f}" for end in ends)
        publish(f"2,000 queries from 20 agents: peak resident {peak / MIB:.1f} MiB, after each round {rounds}")
        assert (first.answers, dict(first.failed), cgroup.oom_kills()) == (1000, {}, 0)
        assert max(peak, sampler.max_resident) < MOST_RESIDENT
        assert max(ends[2:]) - ends[1] <= MOST_GROWTH


def _peak_resident(pid: int) -> int:
    """VmHWM: the kernel's own maximum since exec, which no sampling misses."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
