"""A disk that fails a serving writer: typed refusals, what was acknowledged is there, and the service goes on.

strace lets calls of a live engine fail, all of them or the first of each thread. A sync that failed once counts most:
the kernel drops what it could not write and says so a single time, so a write whose sync failed must be refused, and
must not be taken for synced by a sync that follows. What a refused write left in the log is overwritten by the next
one or, where the engine ends first, there whole or not at all.
"""

from __future__ import annotations

import contextlib
import http.client
import os
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from engine.engine_process import Reply
from engine.traced_engine import Forks, Promised, TracedEngine, held_by_strace

NUMBERS = range(40)
ERRORS = ("EIO", "ENOSPC", "EROFS")
ONCE, ALWAYS = "1", "1+"
OF_A_COMMIT = ("pwrite64", "fdatasync")
OF_A_SEAL = ("write", "pwrite64", "fsync", "fdatasync", "rename", "mkdir")


@pytest.fixture
def forks() -> Generator[Forks]:
    """For one test."""
    with Forks() as forks:
        yield forks


def _begun(forks: Forks, folder: Path) -> TracedEngine:
    engine = forks.engine(folder / "data", folder / "engine")
    assert engine.go(), engine.told()
    return engine


@contextlib.contextmanager
def _failing(engine: TracedEngine, call: str, error: str, when: str) -> Generator[None]:
    with held_by_strace(engine.pid, ["-o", os.devnull, "-e", f"inject={call}:error={error}:when={when}"]):
        yield


def _refused(reply: Reply) -> bool:
    """Whether it was refused, in the one way that a failing disk is told."""
    if reply.status == http.client.OK:
        return False
    assert (reply.status, reply.content_type) == (503, "application/problem+json"), reply
    assert reply.json()["reason"] in {"WriteFailed", "BuildFailed", "VolumeFailed"}, reply
    return True


def _seal(engine: TracedEngine) -> Reply:
    return engine.ask("POST", "/v1/collections/core/seal")


@pytest.mark.parametrize("call", OF_A_COMMIT)
def test_a_write_that_the_disk_fails_is_refused_and_the_next_one_is_taken(
    forks: Forks, tmp_path: Path, call: str, publish: Callable[[str], None]
) -> None:
    """R-E18, faults 71, 73, 75: upsert and delete; queries see nothing of what was refused; no restart is needed."""
    engine, promised = _begun(forks, tmp_path), Promised()
    assert promised.upsert(engine, "core", range(20), "first").status == http.client.OK
    refused = Counter[str]()
    for number, (error, when) in enumerate((error, when) for error in ERRORS for when in (ONCE, ALWAYS)):
        with _failing(engine, call, error, when):
            upserted = promised.upsert(engine, "core", range(number, number + 20), f"refused {number}")
            refused["upsert"] += _refused(upserted)
        assert engine.holds("core", NUMBERS) == promised.acknowledged
        with _failing(engine, call, error, when):
            refused["delete"] += _refused(promised.delete(engine, "core", number + 1))
        assert engine.holds("core", NUMBERS) == promised.acknowledged
        assert promised.upsert(engine, "core", range(number, number + 5), f"taken {number}").status == http.client.OK
    assert refused == {"upsert": 2 * len(ERRORS), "delete": 2 * len(ERRORS)}
    engine.kill()
    successor = _begun(forks, tmp_path)
    assert successor.holds("core", NUMBERS) == promised.acknowledged
    publish(f"{call} failing: {refused.total()} writes refused as WriteFailed, none of them seen, nothing lost")


@pytest.mark.parametrize("call", OF_A_COMMIT)
def test_an_engine_that_ends_after_a_failed_sync_has_the_write_whole_or_not_at_all(
    forks: Forks, tmp_path: Path, call: str, publish: Callable[[str], None]
) -> None:
    """R-E18, fault 75: it was refused, so either is right; what was acknowledged before it and after is there."""
    promised, there = Promised(), 0
    engine = _begun(forks, tmp_path)
    assert promised.upsert(engine, "core", range(20), "first").status == http.client.OK
    for number, error in enumerate(ERRORS):
        assert promised.upsert(engine, "core", range(number, number + 3), f"before {number}").status == http.client.OK
        with _failing(engine, call, error, ONCE):
            assert _refused(promised.upsert(engine, "core", range(10, 30), f"refused {number}"))
            engine.kill()
        engine = _begun(forks, tmp_path)
        before = promised.acknowledged
        assert promised.accepts(engine.holds("core", NUMBERS))
        there += promised.acknowledged != before
    publish(f"{call} failing, then killed: of {len(ERRORS)} refused writes {there} are there whole, the others not")


def test_a_seal_that_the_disk_fails_is_refused_and_leaves_what_was_there(
    forks: Forks, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E18, R-E21, fault 75: whichever call fails; the writes stay in their log, and the next seal takes them."""
    engine, promised = _begun(forks, tmp_path), Promised()
    assert promised.upsert(engine, "core", range(20), "first").status == http.client.OK
    refused = Counter[str]()
    for number, call in enumerate(OF_A_SEAL):
        for error, when in (("EIO", ONCE), ("ENOSPC", ALWAYS)):
            text = f"{number} {error}"
            assert promised.upsert(engine, "core", range(number, number + 9), text).status == http.client.OK
            with _failing(engine, call, error, when):
                refused[call] += _refused(_seal(engine))
            assert engine.holds("core", NUMBERS) == promised.acknowledged
        assert _seal(engine).status == http.client.OK
        assert engine.holds("core", NUMBERS) == promised.acknowledged
    assert min(refused[call] for call in OF_A_SEAL) > 0, refused
    leftovers = [path.name for path in (tmp_path / "data" / "core").iterdir() if path.name.startswith(".building")]
    engine.kill()
    successor = _begun(forks, tmp_path)
    assert successor.holds("core", NUMBERS) == promised.acknowledged
    assert leftovers == []
    publish(f"seals refused on a failing disk: {dict(refused)}; nothing lost, the next one is taken")
