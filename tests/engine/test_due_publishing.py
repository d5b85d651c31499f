"""Seals and compactions in the background: what fails in one is told, tried again, and stops nothing else."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.engine_process import wait_until
from engine.written import Written, notes, written
from membudget_engine.due_publishing import DuePublishing
from membudget_engine.held_collections import Held
from membudget_engine.publishing import COMPACTION, SEAL, Publishing, Run
from membudget_engine.write_problems import Concern, Problem


class Defective(Publishing):
    """Fails for `core` in a way that nobody foresaw, until it is mended."""

    defect: Exception | None = None

    def seal(self, held: Held) -> bool:
        """As the real one, for all others."""
        self._fail(held)
        return super().seal(held)

    def compact(self, held: Held, choose: Run) -> bool:
        """Likewise."""
        self._fail(held)
        return super().compact(held, choose)

    def _fail(self, held: Held) -> None:
        if held.name == "core" and self.defect is not None:
            raise self.defect


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Written]:
    """Collections `core` and `other`, each with a seal and a compaction that will be due; nothing runs yet."""
    with written(tmp_path / "data", tmp_path / "state", background=False) as opened:
        for name in ("core", "other"):
            opened.writer.upsert(name, notes(range(1100), "first"))
            opened.writer.delete(name, [f"note-{number}" for number in range(1050)])
            opened.writer.seal(name)
        yield opened


def _defective(opened: Written) -> Defective:
    return Defective(opened.indexes, opened.runtime.ledger, lambda _: None, threading.Event().is_set)


def _written_to(opened: Written) -> None:
    """A seal is due in both, with a write that found no room."""
    for name in ("core", "other"):
        opened.writer.upsert(name, notes(range(2000, 2003), "second"))
        opened.writer.held.take(name).refusing = True


@pytest.mark.parametrize(("kind", "concern"), [(SEAL, Concern.SEALING), (COMPACTION, Concern.MERGING)])
@pytest.mark.parametrize(
    ("defect", "told", "level"),
    [
        (ZeroDivisionError("by nought"), "a defect of this engine: ZeroDivisionError('by nought')", logging.ERROR),
        (MemoryError(), "the process got no memory for it", logging.WARNING),
    ],
)
def test_what_fails_in_one_collection_is_told_once_and_tried_again_and_others_go_on(
    opened: Written,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    concern: Concern,
    defect: Exception,
    told: str,
    level: int,
) -> None:
    """R-E18: a defect ends no thread; with its traceback in the log, and the reason for whoever has to wait."""
    publishing = _defective(opened)
    publishing.defect = defect
    problems = opened.catalog.problems
    if kind == SEAL:
        _written_to(opened)
    with closing(DuePublishing(opened.catalog, opened.writer.held, publishing)) as due:
        due.start()
        wait_until(lambda: problems.reason("core", concern) is not None and publishing.published[kind] > 0)
        assert Problem(concern, told) in problems.of("core")
        assert problems.of("other") == ()
        due.wake()
        publishing.defect = None
        wait_until(lambda: problems.reason("core", concern) is None)
    assert publishing.published[kind] == len(("core", "other"))
    records = [record for record in caplog.records if record.name == "membudget_engine.due_publishing"]
    assert level in {record.levelno for record in records}
    assert len(records) == len({record.message for record in records})
    traced = [record for record in records if record.exc_info is not None]
    assert (level == logging.ERROR) is bool(traced)


@pytest.mark.parametrize(("kind", "concern"), [(SEAL, Concern.SEALING), (COMPACTION, Concern.MERGING)])
def test_a_problem_ends_when_somebody_asks_for_what_did_not_come_about(
    opened: Written, kind: str, concern: Concern
) -> None:
    """R-E18: nothing is due then, so the background looks at it no more."""
    publishing = _defective(opened)
    publishing.defect = ZeroDivisionError("by nought")
    if kind == SEAL:
        _written_to(opened)
    with closing(DuePublishing(opened.catalog, opened.writer.held, publishing)) as due:
        due.start()
        wait_until(lambda: opened.catalog.problems.reason("core", concern) is not None)
    assert opened.writer.seal("core") if kind == SEAL else opened.writer.compact("core")
    assert opened.catalog.problems.reason("core", concern) is None
