"""Which bytes count, on a real engine with an index far larger than its anonymous memory."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from membudget_cli.demo.trace import Query
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus
from memory_cgroup import MemoryCgroup, memory_cgroup
from page_cache import Pages, pages_in_memory
from resident_sampler import ResidentSampler
from system.kernel_view import (
    PAGE_BYTES,
    ChargeSampler,
    mapped_pages,
    read_bytes,
)
from system.large_index import FAMILIES, IndexFile, build_large_index, questions
from system.serving import Serving, ask, serving, until
from system.timed_asker import TimedAsker, ask_once

pytestmark = pytest.mark.cgroup

AGENTS = 4
SOFT = 0.80
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
POLICY = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {{name: test}}
spec:
  budget: {{total: {total}, signal: {signal}}}
  sampling: {{intervalSeconds: 1}}
"""
HOT_FAMILIES = range(2)
COLD_FAMILIES = range(2, FAMILIES)
QUESTION_BYTES = 20 * MIB
"""What one question maps at most, ten lists in as many large folios: RSS may rise by it between two samples."""
HOT_ASKED = 1000
"""Questions to the hot families before anything else is asked."""
HARM = 3
"""Times that the p99 may be what it was before, and the seconds until it must be back: goals, not bounds here."""
HARM_SECONDS = 2


@pytest.fixture(scope="module")
def index_file() -> Iterator[IndexFile]:
    """Built once, owned by root, readable by everybody."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield IndexFile(build_large_index(Path(folder, "data")))


@contextlib.contextmanager
def engine_on(
    index_file: IndexFile, cgroup: MemoryCgroup, *, total: str, signal: str, user: Sequence[str] = ()
) -> Generator[Serving]:
    """Engine in the cgroup, to which every page of the index is charged, and sidecar outside it."""
    index_file.leave_page_cache()
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, "nobody", "nogroup")
        data = index_file.generation.directory.parent.parent
        with serving(data, Path(folder), cgroup.run, POLICY.format(total=total, signal=signal), user) as stack:
            yield stack


def ask_all(stack: Serving, queries: Sequence[Query]) -> None:
    """Every query once."""
    asked = ask(stack.port, queries, AGENTS)
    assert (asked.answers, dict(asked.failed)) == (len(queries), {})


def acted(stack: Serving) -> list[ActionRecord]:
    """Everything done since the plan was taken over."""
    return [record for record in stack.client.actions() if record.kind is not ActionKind.RESIZE]


def crossings(figures: Sequence[int], entry: int) -> int:
    """How often a rule that fires at an entry would have."""
    over = [figure >= entry for figure in figures]
    return sum(now and not before for before, now in itertools.pairwise([False, *over]))


def test_a_hot_index_of_four_times_the_anonymous_memory_causes_no_action_while_a_working_set_rule_fires(
    index_file: IndexFile, publish: Callable[[str], None]
) -> None:
    """R-S03, case 84: both counted on the trace of one run.

    Mapped pages become active, and so part of the working set, when reclaim meets them in use: here because another
    process in the cgroup reads a file, as a backup does.
    """
    budget = 80 * MIB
    backup = ["cat", str(index_file.generation.directory / "vectors.f32")]
    with (
        memory_cgroup(512 * MIB) as cgroup,
        engine_on(index_file, cgroup, total="80Mi", signal="Unreclaimable") as stack,
    ):
        looks_before = stack.client.status().samples
        with ChargeSampler(cgroup) as charges, ResidentSampler(stack.engine.pid) as sampler:
            ask_all(stack, questions(range(FAMILIES), 1500, seed=11))
            assert cgroup.run(backup, stdout=subprocess.DEVNULL).wait(timeout=60) == 0
            ask_all(stack, questions(range(FAMILIES), 3000, seed=12))
            mapped = int(np.count_nonzero(mapped_pages(stack.engine.pid, index_file.path))) * PAGE_BYTES
        status, actions = stack.client.status(), acted(stack)
    unreclaimable = [sample.unreclaimable for sample in charges.samples]
    working_sets = [sample.working_set for sample in charges.samples]
    entry = int(budget * SOFT)
    looks, fired = status.samples - looks_before, crossings(working_sets, entry)
    over = sum(figure >= entry for figure in working_sets) / len(working_sets)
    publish(
        f"hot index {mapped / MIB:.0f} MiB beside {sampler.max_anonymous / MIB:.0f} MiB anonymous, budget 80 MiB: "
        f"Unreclaimable at most {max(unreclaimable) / MIB:.1f} MiB, {len(actions)} actions in {looks} looks; "
        f"working set at most {max(working_sets) / MIB:.0f} MiB, its rule fired {fired} times, over the soft entry in "
        f"{over:.0%} of {len(working_sets)} samples"
    )
    assert mapped >= 4 * sampler.max_anonymous
    assert (status.level, status.transitions, actions) == ("Normal", 0, [])
    assert fired >= 1
    assert over > 0.1
    assert max(unreclaimable) < entry
    assert looks >= 3


def test_an_index_of_four_times_the_limit_read_through_it_causes_no_action(
    index_file: IndexFile, publish: Callable[[str], None]
) -> None:
    """R-S03, case 84: the cgroup stands at its limit all the time, with pages that cost nothing to drop."""
    limit = index_file.path.stat().st_size // 4
    asked = questions(range(FAMILIES), 120, seed=5)
    with memory_cgroup(limit) as cgroup, engine_on(index_file, cgroup, total="100%", signal="Unreclaimable") as stack:
        read_before, started = read_bytes(stack.engine.pid), time.monotonic()
        ask_all(stack, asked)
        seconds = time.monotonic() - started
        read = read_bytes(stack.engine.pid) - read_before
        status, actions, peak, kills = stack.client.status(), acted(stack), cgroup.peak_usage(), cgroup.oom_kills()
    whole = index_file.pages_read_by(asked).mean()
    publish(
        f"index of 4 times the limit of {limit / MIB:.0f} MiB: {whole:.0%} of it looked into, {read / MIB:.0f} MiB "
        f"read in {seconds:.1f} s, peak charged {peak / MIB:.1f} MiB, {len(actions)} actions"
    )
    assert (status.level, status.transitions, actions, kills) == ("Normal", 0, [], 0)
    assert whole > 0.95
    assert read > 3 * limit
    assert peak > 0.95 * limit


@dataclass(frozen=True)
class PagedOut:
    """One Cleanup, and what was seen of it from outside."""

    record: ActionRecord
    others: list[ActionRecord]
    resident_before: int
    """The most that was sampled from half a second before the action to its end."""
    resident_after: int
    """The last sample before its end."""
    in_memory_before: Pages
    """Before RSS grew: nearly all of the file, which the engine had read to verify it."""
    in_memory_after: Pages
    mapped_after: Pages
    hot: Pages
    asked_last: Pages
    """Of the last three questions answered before the action began."""
    p99_before: float
    p99_within: float
    p99_later: float
    oom_kills: int

    @property
    def freed_outside(self) -> int:
        """By how much RSS fell."""
        return self.resident_before - self.resident_after


@pytest.mark.parametrize("user", [(), AS_NOBODY], ids=["owner", "stranger"])
def test_the_first_rung_under_resident_set_size_pages_out_the_coldest_mapped_pages(
    index_file: IndexFile, user: Sequence[str], publish: Callable[[str], None]
) -> None:
    """R-S03, R-S04: pages leave the process and the memory, hot ones stay; also where the file is another user's.

    There MADV_PAGEOUT returns 0 and does nothing.
    """
    seen = page_out_under_load(index_file, user)
    record, gone = seen.record, seen.in_memory_before & ~seen.in_memory_after
    assert record.signal_before_bytes is not None
    assert record.signal_after_bytes is not None
    assert record.freed_bytes is not None
    stayed = (seen.mapped_after & seen.hot).sum() / seen.hot.sum()
    within, later = (p99 / seen.p99_before for p99 in (seen.p99_within, seen.p99_later))
    publish(
        f"Cleanup as {'uid 65534' if user else 'owner'}: asked {record.asked_bytes / MIB:.1f} MiB, freed "
        f"{record.freed_bytes / MIB:.1f} by the record, {seen.freed_outside / MIB:.1f} by RSS from outside, "
        f"{gone.sum() * PAGE_BYTES / MIB:.1f} of the file left memory; {stayed:.1%} of hot pages stayed mapped; p99 of "
        f"hot queries {seen.p99_before * 1000:.2f} ms, {within:.2f} times that within {HARM_SECONDS} s (goal {HARM}), "
        f"{later:.2f} times later"
    )
    assert (record.kind, record.status) == (ActionKind.CLEANUP, ActionStatus.EFFECTIVE)
    assert {other.kind for other in seen.others} <= {ActionKind.COLLECT}
    assert abs(record.signal_before_bytes - seen.resident_before) < QUESTION_BYTES
    assert abs(record.signal_after_bytes - seen.resident_after) < 4 * MIB
    assert gone.sum() * PAGE_BYTES >= 0.9 * record.asked_bytes
    assert not (gone & seen.hot).any()
    assert stayed > 0.95
    assert (gone & seen.asked_last).sum() < 0.2 * seen.asked_last.sum()
    assert seen.oom_kills == 0


def page_out_under_load(index_file: IndexFile, user: Sequence[str]) -> PagedOut:
    """Two families are asked for all the time; questions to the others bring RSS over the soft entry, then stop."""
    hot_queries = questions(HOT_FAMILIES, 6000, seed=21)
    with (
        memory_cgroup(1024 * MIB) as cgroup,
        engine_on(index_file, cgroup, total="320Mi", signal="ResidentSetSize", user=user) as stack,
        ResidentSampler(stack.engine.pid) as sampler,
        TimedAsker(stack.port, hot_queries, 0.002) as asker,
    ):
        until(lambda: len(asker.asked) >= HOT_ASKED, 60)
        in_memory_before = pages_in_memory(index_file.path)
        swept_from = time.time()
        answered = sweep(stack)
        until(lambda: cleanups(stack)[0].finished_at is not None, 20)
        in_memory_after = pages_in_memory(index_file.path)
        mapped_after = mapped_pages(stack.engine.pid, index_file.path)
        record, *_ = cleanups(stack)
        started_at, finished_at = record.started_at, record.finished_at
        assert started_at is not None
        assert finished_at is not None
        until(lambda: time.time() > started_at + 2 * HARM_SECONDS, 20)
        assert asker.failure is None
        return PagedOut(
            record=record,
            others=[other for other in acted(stack) if other.id != record.id],
            resident_before=max(resident_between(sampler, started_at - 0.5, finished_at)),
            resident_after=resident_between(sampler, started_at, finished_at)[-1],
            in_memory_before=in_memory_before,
            in_memory_after=in_memory_after,
            mapped_after=mapped_after,
            hot=index_file.pages_read_by(hot_queries[:HOT_ASKED]),
            asked_last=index_file.pages_read_by(last_before(answered, started_at)),
            p99_before=asker.p99_seconds(swept_from - 2, swept_from),
            p99_within=asker.p99_seconds(started_at, started_at + HARM_SECONDS),
            p99_later=asker.p99_seconds(started_at + HARM_SECONDS, started_at + 2 * HARM_SECONDS),
            oom_kills=cgroup.oom_kills(),
        )


def sweep(stack: Serving) -> list[tuple[float, Query]]:
    """Ask cold questions one by one until a Cleanup has begun; gives when each was answered, in unix seconds.

    Each brings up to 20 MiB, and near the soft entry the sidecar looks ten times a second: as a rule it has acted on
    one before the next is asked.
    """
    answered: list[tuple[float, Query]] = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", stack.port)) as connection:
        for query in questions(COLD_FAMILIES, 100, seed=22):
            ask_once(connection, query)
            answered.append((time.time(), query))
            time.sleep(0.4)
            if cleanups(stack):
                return answered
    raise AssertionError("a hundred cold questions brought no Cleanup")


def last_before(answered: Sequence[tuple[float, Query]], moment: float) -> list[Query]:
    """The last three; one in work while pages leave may read a list that had not been asked for when it was chosen."""
    return [query for answered_at, query in answered if answered_at < moment][-3:]


def cleanups(stack: Serving) -> list[ActionRecord]:
    """Those begun so far."""
    return [record for record in acted(stack) if record.kind is ActionKind.CLEANUP]


def resident_between(sampler: ResidentSampler, since: float, end: float) -> list[int]:
    """RSS in the samples between two moments in unix seconds."""
    offset = time.time() - time.monotonic()
    return [sample.resident for sample in sampler.samples if since <= sample.taken_at + offset < end]
