"""Full is normal: caches offered more than they may hold settle below the soft rung, and the ladder is silent."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from membudget_cli.demo.trace import Query
from membudget_contract.profiles import SEMANTIC_CACHE
from resident_sampler import ResidentSampler
from system.conftest import BuiltCorpus
from system.serving import Serving, ask, serving, stdlib_queries

AGENTS = 8
BATCH = 2000
OFFERED_TIMES = 3
SOFT = 80
WITHIN_POINTS = 3


def test_caches_offered_three_times_their_budget_cause_no_transition_and_settle_just_below_soft(
    built_corpus: BuiltCorpus, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E18, R-S03: the signal stays within three points below soft while new answers keep coming."""
    publish(_hold_steady(built_corpus, tmp_path, seconds=20))


@pytest.mark.soak
def test_five_minutes_of_it(built_corpus: BuiltCorpus, tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E18, R-S03: the same for five minutes."""
    publish(_hold_steady(built_corpus, tmp_path, seconds=300))


def _hold_steady(corpus: BuiltCorpus, folder: Path, seconds: float) -> str:
    with serving(corpus.data, folder, subprocess.Popen) as stack:
        endless = itertools.cycle(stdlib_queries(16_000))
        while _offered_times(stack) < OFFERED_TIMES:
            _ask_batch(stack, endless)
        with ResidentSampler(stack.engine.pid) as sampler:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                _ask_batch(stack, endless)
        status = stack.client.status()
    shares = [100 * sample.resident / status.budget_bytes for sample in sampler.samples]
    assert (status.transitions, status.level) == (0, "Normal")
    assert max(shares) < SOFT
    assert min(shares) >= SOFT - WITHIN_POINTS
    return (
        f"steady for {seconds} s: signal {min(shares):.2f} to {max(shares):.2f} % of the budget, "
        f"median {statistics.median(shares):.2f}, no transition"
    )


def _ask_batch(stack: Serving, endless: itertools.cycle[Query]) -> None:
    asked = ask(stack.port, list(itertools.islice(endless, BATCH)), AGENTS)
    assert (asked.answers, dict(asked.failed)) == (BATCH, {})


def _offered_times(stack: Serving) -> float:
    """Bytes of all answers ever offered, over the cache's ceiling: those kept, and those evicted or refused."""
    metrics = stack.metrics()
    part = next(part for part in stack.client.status().components if part.name == SEMANTIC_CACHE)
    if not part.entries or not part.budget_bytes:
        return 0.0
    label = f'{{cache="{SEMANTIC_CACHE}"}}'
    gone = sum(metrics[f"membudget_engine_cache_{what}_total{label}"] for what in ("evictions", "refused"))
    return (part.entries + gone) * part.owned_bytes / part.entries / part.budget_bytes
