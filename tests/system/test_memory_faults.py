"""Faults of memory on real processes: a service on the runtime in a cgroup, and a real sidecar."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ActionKind, ActionRecord, ActionStatus, Status
from memory_cgroup import memory_cgroup
from system.kernel_view import charged, resident_bytes
from system.service import RunningService, running_service
from system.service_process import ONE_IN
from system.serving import until

pytestmark = pytest.mark.cgroup

POLICY = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {{name: test}}
spec:
  budget: {{total: {total}, signal: Unreclaimable, components: {{semanticCache: 80%}}}}
  sampling: {{intervalSeconds: 1}}
  collections: [{{name: pinned, priority: Critical}}]
"""
LIMIT = 256 * MIB
COLLECT = ActionKind.COLLECT.value
EVICT, INEFFECTIVE = ActionKind.EVICT.value, ActionStatus.INEFFECTIVE.value
PAUSE_SECONDS = 10
"""Between two tries of a ladder that found nothing to free, at least."""
EATER = "import sys; eaten = bytearray(b'x') * int(sys.argv[1]); print('eaten', flush=True); sys.stdin.read()"


def results(records: list[ActionRecord]) -> list[tuple[str, str]]:
    """Kind and status of each."""
    return [(record.kind.value, record.status.value) for record in records]


def owned_bytes(status: Status) -> int:
    """Of all components, as the service last reported them."""
    return sum(part.owned_bytes for part in status.components)


def test_critical_data_alone_is_never_evicted_and_the_ladder_pauses(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-S06, case 46: each rung ends Ineffective with its figures, the next runs, then there is a pause and no loop."""
    rungs = [(kind, INEFFECTIVE) for kind in ("Cleanup", "Spill", "Evict")]
    with memory_cgroup(LIMIT) as cgroup, running_service(cgroup, tmp_path, POLICY.format(total="128Mi")) as service:
        with service.unseen():
            kept = service.tell(f"fill pinned {60 * MIB}")
            service.tell(f"hold {30 * MIB}")
        until(lambda: results(service.acted()) == rungs, 30)
        records = service.acted()
        time.sleep(PAUSE_SECONDS + 2)  # in which one try may come, and no more
        later = service.acted()[len(records) :]
        left, status = service.tell("fill pinned 0"), service.client.status()
    publish(
        f"nothing to free: {', '.join(' '.join(result) for result in results(records))}; freed "
        f"{[record.freed_bytes for record in records]}, then {len(later)} tries in {PAUSE_SECONDS + 2} s"
    )
    assert [(record.entries, record.owned_after_bytes) for record in records] == [(0, kept)] * 3
    assert [record.exhausted for record in records] == [True] * 3
    assert None not in [record.freed_bytes for record in records]
    assert len(later) <= 1
    assert (left, status.level) == (kept, "Soft")


def test_bytes_freed_but_kept_by_malloc_are_given_back_and_measured(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-S04, case 85: the first rung trims the heap, and its record says what that brought, by the kernel."""
    scattered = 60 * MIB
    freed = scattered - scattered // ONE_IN
    with memory_cgroup(LIMIT) as cgroup, running_service(cgroup, tmp_path, POLICY.format(total="128Mi")) as service:
        bare = resident_bytes(service.process.pid)
        service.tell(f"scatter {scattered}")
        kept_by_malloc = resident_bytes(service.process.pid) - bare - (scattered - freed)
        held = service.tell(f"hold {30 * MIB}")
        until(lambda: any(record.finished_at for record in service.acted()), 20)
        record, *more = service.acted()
        left = resident_bytes(service.process.pid) - bare - held - (scattered - freed)
        status = service.client.status()
    assert record.freed_bytes is not None
    publish(
        f"{freed / MIB:.1f} MiB freed between values that stay: malloc kept {kept_by_malloc / MIB:.1f}, the first rung "
        f"gave back {record.freed_bytes / MIB:.1f} by its record; {left / MIB:.1f} share pages with what stays"
    )
    assert kept_by_malloc > 0.9 * freed
    assert (record.kind, record.status, more) == (ActionKind.CLEANUP, ActionStatus.EFFECTIVE, [])
    assert record.freed_bytes > 0.8 * freed
    assert abs((kept_by_malloc - left) - record.freed_bytes) < 4 * MIB
    assert status.level == "Normal"


def test_a_budget_in_percent_follows_a_limit_lowered_and_raised_live(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-P03, case 86: the kernel refuses a limit under the usage; one above it brings caches under the new budget."""
    with memory_cgroup(LIMIT) as cgroup, running_service(cgroup, tmp_path, POLICY.format(total="75%")) as service:
        client = service.client
        service.tell(f"fill default {120 * MIB}")

        with pytest.raises(OSError, match="busy") as refused:
            cgroup.set_limit(100 * MIB)
        refused_budget = client.status().budget_bytes

        lowered_at = time.monotonic()
        cgroup.set_limit(160 * MIB)
        until(lambda: client.status().budget_bytes == 120 * MIB, 10)
        followed = time.monotonic() - lowered_at
        until(lambda: charged(cgroup).unreclaimable < 0.8 * 120 * MIB, 10)
        fits = time.monotonic() - lowered_at

        raised_at = time.monotonic()
        cgroup.set_limit(LIMIT)
        until(lambda: client.status().budget_bytes == 192 * MIB, 10)
        rose = time.monotonic() - raised_at
        until(lambda: service.tell(f"fill default {120 * MIB}") >= 120 * MIB, 10)
        refilled = time.monotonic() - raised_at
        resizes = [record for record in client.actions() if record.kind is ActionKind.RESIZE]
        kills = cgroup.oom_kills()
    publish(
        f"limit lowered live: the budget follows in {followed:.2f} s, the signal is under its soft entry in "
        f"{fits:.2f} s; raised: {rose:.2f} s, and the cache is full again after {refilled:.1f} s"
    )
    assert (refused.value.errno, refused_budget) == (errno.EBUSY, 192 * MIB)
    assert [record.status for record in resizes[1:]] == [ActionStatus.EFFECTIVE, ActionStatus.DONE]
    assert kills == 0


def at_rest(service: RunningService) -> list[ActionRecord]:
    """What was done, once nothing is under way and a second brought nothing new."""
    records, later = [], service.acted()
    while results(later) != results(records) or any(record.finished_at is None for record in later):
        time.sleep(1)
        records, later = later, service.acted()
    return later


def gave_all(status: Status) -> bool:
    """Nothing is left to evict, and what is left of the signal lies under the hard rung: no Evict will be tried."""
    return status.level in {"Normal", "Soft"} and owned_bytes(status) < MIB


def test_a_sibling_that_eats_memory_is_attributed_and_starts_no_eviction_loop(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-S06, case 88: what can be freed is freed once; then there is a pause, and afterwards room again."""
    eaten = 90 * MIB
    with memory_cgroup(LIMIT) as cgroup, running_service(cgroup, tmp_path, POLICY.format(total="128Mi")) as service:
        client = service.client
        managed = service.tell(f"fill default {40 * MIB}")
        until(lambda: owned_bytes(client.status()) == managed, 10)
        before, started = client.status(), time.time()
        sibling = cgroup.run([sys.executable, "-c", EATER, str(eaten)], stdin=-1, stdout=-1)
        assert sibling.stdin is not None
        until(lambda: (EVICT, INEFFECTIVE) in results(service.acted()) or gave_all(client.status()), 30)
        records = at_rest(service)
        time.sleep(0.7 * PAUSE_SECONDS)  # in which nothing should happen
        during = client.status()
        sibling.stdin.close()
        sibling.wait(timeout=10)
        until(lambda: client.status().level == "Normal", 20)
        until(lambda: service.tell(f"fill default {40 * MIB}") >= 40 * MIB, 20)
        after, kills = service.acted(), cgroup.oom_kills()
    assert before.room_bytes is not None
    assert during.room_bytes is not None
    publish(
        f"a sibling ate {eaten / MIB:.0f} MiB: room {before.room_bytes / MIB:.1f} -> {during.room_bytes / MIB:.1f}, "
        + ", ".join(
            f"{r.queued_at - started:.1f} s {r.kind} {r.status} {(r.freed_bytes or 0) / MIB:.1f}" for r in records
        )
    )
    assert before.room_bytes - during.room_bytes > 0.9 * eaten
    assert managed - owned_bytes(during) >= 0.9 * managed
    # A collection may come on the way down, once; what evicts and spills is done when there is nothing left.
    assert [each for each in results(after) if each[0] != COLLECT] == [
        each for each in results(records) if each[0] != COLLECT
    ]
    assert kills == 0
