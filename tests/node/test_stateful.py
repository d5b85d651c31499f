"""Readers beside a writer on volumes that outlive their pods: the chart's example with `example.writer.enabled`.

Covers: what goes from the writer to its readers, both under their policies; a rolling update that keeps caches warm and
how its pod ends; a writer that is killed while it writes. Goes on with the installation of test_node.py, after
test_shrink_first.py, which copies the reader as it was before.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Self

import pytest

from membudget_cli.demo.trace import Query, skewed
from membudget_contract.quantities import MIB
from node.burst import COLLECTION, SOURCE
from node.ending import ending
from node.engine_client import Engine
from node.installed import ENGINE, ENGINE_PORT, NAMESPACE, READY_SECONDS, SIDECAR, Installed
from node.load import Load, Question, distinct
from node.node import LOOK_AGAIN_SECONDS
from node.sandbox import until
from node.volumes import provide

pytestmark = pytest.mark.node

WRITER, READER = "retriever-writer", "retriever"
BUDGET = {"total": "75%"}
LIMIT = 200 * MIB
"""The chart's for both."""
GRACE_SECONDS = 30
"""The chart's."""
BOUND_SECONDS = READY_SECONDS + LOOK_AGAIN_SECONDS
"""A pod whose claims were not bound when the scheduler looked may wait for its next look at all that are left."""
DOCUMENTS = 1500
"""Replaced all at once they are enough dead rows for a compaction."""
TRACE_QUERIES, TRACE_TEXTS = 600, 400
POINTS = 0.05
ACKNOWLEDGED = 200
"""Before the kill; the one in flight may or may not hold."""
COMPACTIONS = "membudget_engine_publications_total{compaction}"


@pytest.fixture(scope="module")
def roles(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Generator[Installed]:
    """One writer and one reader, ready, each under its policy."""
    volumes = tmp_path_factory.mktemp("volumes")
    for claim, storage in (("data", "2Gi"), ("engine-state", "1500Mi")):
        provide(installed.node, volumes / claim, f"{claim}-{WRITER}-0", storage)
    installed.helm("upgrade", "example.writer.enabled=true", f"example.source={SOURCE}")
    until(lambda: len(installed.ready_pods(WRITER)) == 1, BOUND_SECONDS)
    # In place of the cluster's name service, which there is none of here.
    alias = {"ip": installed.pod(WRITER).address, "hostnames": [WRITER]}
    patch = {"spec": {"template": {"spec": {"hostAliases": [alias]}}}}
    installed.node.kubectl("patch", "deploy", READER, "-n", NAMESPACE, "-p", json.dumps(patch))
    installed.node.kubectl("rollout", "status", f"deploy/{READER}", "-n", NAMESPACE, "--timeout=150s")
    until(lambda: len(installed.pods()) == len(installed.ready_pods()) == 1, READY_SECONDS)
    yield installed
    # As the chart has it: helm refuses to overwrite what somebody else applied.
    installed.apply_policy(budget=BUDGET)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """Made once: for each its text comes from the whole standard library."""
    return distinct(TRACE_TEXTS, COLLECTION)[:TRACE_TEXTS]


def test_what_the_writer_takes_is_found_through_a_reader(roles: Installed, publish: Callable[[str], None]) -> None:
    """R-E18, R-P09: ingested, sealed, replaced, compacted; each time the reader has it once it looked again."""
    writer, reader = Engine(roles, roles.pod(WRITER)), Engine(roles, roles.pod(READER))
    assert (None, 409) == (reader.best("docs", "anything"), reader.send("POST", "/v1/collections/docs/seal")[0])
    for upload, text in (("first", "how to open a valve"), ("second", "when to rotate a log")):
        status, taken = writer.send("PUT", f"/v1/ingest/docs/{upload}.ndjson", documents(text))
        assert (200, DOCUMENTS) == (status, taken["records"])
        assert 200 == writer.send("POST", "/v1/collections/docs/seal")[0]
    until(lambda: roles.metrics(roles.pod(WRITER).address, ENGINE_PORT).get(COMPACTIONS, 0) == 1)
    assert reader.best("docs", "when to rotate a log, page 7") is None
    started = time.monotonic()
    roles.apply_policy(budget=BUDGET, reload={"index": "compacted"})
    until(lambda: reader.best("docs", "when to rotate a log, page 7") == "page-7", READY_SECONDS)
    publish(
        f"{DOCUMENTS} documents ingested, sealed, replaced, compacted by the writer: found through a reader "
        f"{time.monotonic() - started:.1f} s after kubectl apply of a reload"
    )
    served = {each["name"]: each["count"] for each in reader.send("GET", "/v1/collections")[1]}
    assert DOCUMENTS == served["docs"]
    assert 0 == roles.pod(READER).restarts(ENGINE)


def test_each_role_follows_a_policy_of_its_own(roles: Installed) -> None:
    """R-P01, R-P08: two policies, two budgets, each acknowledged by its pod alone."""
    totals = {READER: 70, WRITER: 65}
    for name, percent in totals.items():
        roles.apply_policy(name, name, budget={"total": f"{percent}%"})
    for name, percent in totals.items():
        until(lambda name=name: roles.is_programmed(name), READY_SECONDS)
        held = roles.metrics(roles.pod(name).address)
        assert (LIMIT * percent // 100, LIMIT) == (held["membudget_budget_bytes"], held["membudget_limit_bytes"])


def test_a_rolling_update_keeps_caches_warm(
    roles: Installed, questions: list[Question], tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E17: state on a volume; persisted after SIGTERM, everything ends by itself within the grace period."""
    before = roles.pod(WRITER)
    old = Engine(roles, before)
    assert old.write(COLLECTION, "before_the_update", "answers are of what was written too")
    cold, _, going_on = (old.hit_rate(trace(questions, seed)) for seed in (1, 2, 2))
    with ending(roles, before, tmp_path) as end:
        roles.node.kubectl("rollout", "restart", f"statefulset/{WRITER}", "-n", NAMESPACE)
    until(lambda: [pod.uid for pod in roles.ready_pods(WRITER)] not in ([], [before.uid]), READY_SECONDS)
    warm = Engine(roles, roles.pod(WRITER)).hit_rate(trace(questions, 2))
    persisted = re.search(r"persisted (\d+) entries, \d+ bytes", end.engine_log)
    assert persisted is not None, end.engine_log
    publish(
        f"rolling update of a pod with its state on a volume: hit rate cold {cold:.3f}, before {going_on:.3f}, after "
        f"{warm:.3f}; {persisted[1]} entries persisted; gone after {end.seconds:.1f} of {GRACE_SECONDS} s, "
        f"exit codes {end.exit_codes}"
    )
    assert going_on > cold + POINTS
    assert warm >= going_on - POINTS
    assert {ENGINE: 0, SIDECAR: 0} == end.exit_codes
    assert end.seconds < GRACE_SECONDS


def test_a_killed_writer_has_every_acknowledged_write(
    roles: Installed, questions: list[Question], publish: Callable[[str], None]
) -> None:
    """R-E18, guarantee 1: SIGKILL amid writes and the pod forced away; its readers answer on meanwhile."""
    pod, reader = roles.pod(WRITER), roles.pod(READER)
    (process,) = roles.processes(pod, ENGINE)
    with Load(roles.node, lambda: [reader.address], itertools.cycle(questions), agents=1) as load:
        with Writes(Engine(roles, pod)) as writes:
            until(lambda: len(writes.acknowledged) >= ACKNOWLEDGED)
            os.kill(process, signal.SIGKILL)
            roles.node.kubectl("delete", "pod", pod.name, "-n", NAMESPACE, "--grace-period=0", "--force")
        started = time.monotonic()
        until(lambda: [found.uid for found in roles.ready_pods(WRITER)] not in ([], [pod.uid]), READY_SECONDS)
        took = time.monotonic() - started
    assert (True, {}) == (load.answered > 0, dict(load.failed))
    again = Engine(roles, roles.pod(WRITER))
    lost = [name for name in writes.acknowledged if again.send("GET", f"/v1/chunks/{COLLECTION}/{name}")[0] != 200]
    publish(
        f"writer killed by SIGKILL and its pod forced away after {len(writes.acknowledged)} acknowledged writes: ready "
        f"again {took:.1f} s later, {len(lost)} lost; {load.answered} queries to a reader meanwhile, none failed"
    )
    assert [] == lost
    assert again.write(COLLECTION, "afterwards", "it writes on")


class Writes:
    """One chunk after the other into the collection that was built at the start, until the engine is gone."""

    def __init__(self, engine: Engine) -> None:
        self.acknowledged: list[str] = []
        self._engine = engine
        self._thread = threading.Thread(target=self._write_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _write_on(self) -> None:
        for number in itertools.count():
            try:
                if self._engine.write(COLLECTION, f"kept_{number}", f"the write of number {number}"):
                    self.acknowledged.append(f"kept_{number}")
            except OSError:
                return


def documents(text: str) -> bytes:
    """The same pages, each with this text and its number."""
    pages = ({"id": f"page-{number}", "source": f"{text}, page {number}"} for number in range(DOCUMENTS))
    return "".join(json.dumps(page) + "\n" for page in pages).encode()


def trace(questions: list[Question], seed: int) -> list[Query]:
    """Questions by Zipf's law, as agents ask them."""
    return list(itertools.islice(skewed([query for query, _ in questions], seed), TRACE_QUERIES))
