"""Full is normal: caches offered more than they may hold settle below the soft rung, and the ladder is silent.

Offered is what each question takes in the caches as long as nothing has to go.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from membudget_cli.demo.agents import HITS
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


@pytest.mark.timeout(600)  # a hundred thousand questions: what is kept of one has 620 bytes
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
        endless = _batches(stdlib_queries(16_000))
        _ask_batch(stack, endless)
        found, held_bytes = _found_and_held(stack)
        each = held_bytes / found  # nothing had to go yet
        while found * each < OFFERED_TIMES * held_bytes:
            _ask_batch(stack, endless)
            found, held_bytes = _found_and_held(stack)
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


def _batches(questions: list[Query]) -> Iterator[tuple[list[Query], int]]:
    """Each round asks for one hit more: an answer to another number of hits is a new one."""
    for hits in itertools.count(HITS):
        for first in range(0, len(questions), BATCH):
            yield questions[first : first + BATCH], hits


def _ask_batch(stack: Serving, endless: Iterator[tuple[list[Query], int]]) -> None:
    queries, hits = next(endless)
    asked = ask(stack.port, queries, AGENTS, hits)
    assert (asked.answers, dict(asked.failed)) == (len(queries), {})


def _found_and_held(stack: Serving) -> tuple[float, float]:
    """How many answers were ever offered to the cache, and the bytes it holds now, as the engine says at this moment.

    The sidecar's figures may be of ten seconds ago: of the start.
    """
    told = stack.metrics()
    held_bytes = told[f'membudget_engine_component_owned_bytes{{component="{SEMANTIC_CACHE}"}}']
    return told['membudget_engine_queries_total{answer="index"}'], held_bytes
