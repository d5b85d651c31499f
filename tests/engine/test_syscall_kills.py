"""A writing engine killed on its way into a system call: what it acknowledged is there, the rest whole or not at all.

Where the failpoints of `test_write_crashes.py` stand between steps, strace kills inside them: at the k-th pwrite64 of
a commit, the second of three syncs, between two unlinks of a folder. First an engine is traced that nobody kills: how
often each thread makes each call tells from what k may be drawn. `MEMBUDGET_SYSCALL_KILLS` says how many;
`make torture` asks for a thousand.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from engine.traced_engine import Forks, Promised, TracedEngine, held_by_strace

KILLS = int(os.environ.get("MEMBUDGET_SYSCALL_KILLS", "20"))
COLLECTION_LIVES = 7
"""Kills until a new collection begins, so that its making is struck too."""
CALLS = (
    "pwrite64", "write", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "unlinkat", "rmdir", "mkdir", "openat",
)  # fmt: skip
NUMBERS = range(60)
"""Of the notes that are ever written."""
MISSES_AT_MOST = 3
"""Of all lives to one kill: threads are not the same each time, so a k may not be reached."""


@pytest.fixture
def forks() -> Generator[Forks]:
    """For one test."""
    with Forks() as forks:
        yield forks


def _work(engine: TracedEngine, collection: str, promised: Promised, seed: int) -> None:
    """Upserts, deletes, two seals and a reload; raises OSError or HTTPException when the engine ends."""
    draw = random.Random(seed)
    for step in range(8):
        first = draw.randrange(40)
        reply = promised.upsert(engine, collection, range(first, first + draw.randrange(1, 20)), f"{seed} {step}")
        assert reply.status == http.client.OK, reply
        assert promised.delete(engine, collection, draw.choice(NUMBERS)).status == http.client.OK
        if step % 4 == 2:
            assert engine.ask("POST", f"/v1/collections/{collection}/seal").status == http.client.OK
            engine.reload()


def _most_of_a_thread(trace: str) -> dict[str, int]:
    """How often a thread made each call, of the one that made it most."""
    made = Counter(re.findall(r"^(\d+) +(\w+)\(", trace, re.MULTILINE))
    return {call: max(count for (_, name), count in made.items() if name == call) for _, call in made}


def _counted(forks: Forks, folder: Path) -> dict[str, int]:
    engine = forks.engine(folder / "counted", folder / "engine")
    with held_by_strace(engine.pid, ["-o", str(folder / "trace"), "-e", f"trace={','.join(CALLS)}"]):
        assert engine.go(), engine.told()
        _work(engine, "core", Promised(), 0)
        engine.kill()
    return _most_of_a_thread((folder / "trace").read_text())


def _life(forks: Forks, folder: Path, collection: str, promised: Promised, kill: str, seed: int) -> int:
    """One engine from start to end; its wait status. What it left is compared."""
    engine = forks.engine(folder / "data", folder / "engine")
    with held_by_strace(engine.pid, ["-o", os.devnull, "-e", f"inject={kill}"]):
        if engine.go():
            try:
                _work(engine, collection, promised, seed)
            except (OSError, http.client.HTTPException):
                pass
            else:
                os.kill(engine.pid, signal.SIGUSR2)  # not struck: another end, told apart by its status
        status = forks.ended()
    successor = forks.engine(folder / "data", folder / "engine")
    assert successor.go(), successor.told()
    found = successor.holds(collection, NUMBERS)
    successor.kill()
    assert promised.accepts(found), f"{kill}: {promised.acknowledged} was acknowledged, {found} is there"
    return status


def test_an_engine_killed_at_any_system_call_loses_no_acknowledged_write(
    forks: Forks, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E18, fault 55: at the k-th call of a thread, for every call that changes a file, k over the whole run."""
    most = _counted(forks, tmp_path)
    assert {"pwrite64", "fdatasync", "fsync", "rename", "openat"} <= most.keys()
    draw = random.Random(55)
    struck, lives, promised = Counter[str](), 0, Promised()
    while struck.total() < KILLS:
        if lives % COLLECTION_LIVES == 0:
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
            promised = Promised()
        calls = sorted(most)
        call = calls[lives % len(calls)]
        kill = f"{call}:signal=KILL:when={draw.randint(1, most[call])}"
        status = _life(forks, tmp_path, "core", promised, kill, lives)
        assert os.WTERMSIG(status) in {signal.SIGKILL, signal.SIGUSR2}, kill
        struck[call] += os.WTERMSIG(status) == signal.SIGKILL
        lives += 1
        assert lives <= MISSES_AT_MOST * KILLS, f"only {struck.total()} of {lives} lives were struck"
    publish(
        f"{struck.total()} of {lives} engines killed at system calls, no acknowledged write lost: "
        + ", ".join(f"{call} {count}" for call, count in sorted(struck.items()) if count)
    )
