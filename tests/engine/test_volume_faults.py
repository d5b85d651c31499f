"""What an outsider or a volume may do to the data folder of a serving writer, short of failing calls.

Failing calls stand in `test_io_errors.py`, a full and a read-only volume in `test_write_faults.py`, files that were
changed while nobody served them in `test_hostile_indexes.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from engine.engine_process import search_body
from engine.traced_engine import Forks, Promised, TracedEngine, held_by_strace
from membudget_engine.index.manifest import INDEX_FILE
from membudget_engine.stores.write_log import LOG_FILE
from memory_cgroup import require

NUMBERS = range(60)
OPEN_FILES_MORE = 16
CONNECTIONS = 60
SYNC_SECONDS = 1.0


@pytest.fixture
def forks() -> Generator[Forks]:
    """For one test."""
    with Forks() as forks:
        yield forks


def _begun(forks: Forks, data: Path, own: Path) -> tuple[TracedEngine, Promised]:
    """With a first generation, and writes since."""
    engine, promised = _again(forks, data, own), Promised()
    assert promised.upsert(engine, "core", range(30), "first").status == http.client.OK
    assert promised.upsert(engine, "core", range(20, 40), "second").status == http.client.OK
    return engine, promised


def _again(forks: Forks, data: Path, own: Path) -> TracedEngine:
    engine = forks.engine(data, own)
    assert engine.go(), engine.told()
    return engine


def _seal(engine: TracedEngine) -> int:
    return engine.ask("POST", "/v1/collections/core/seal").status


def test_a_mapped_index_that_is_cut_by_an_outsider_ends_the_engine_and_the_next_one_does_without(
    forks: Forks, tmp_path: Path
) -> None:
    """Fault 62: SIGBUS; the checksum refuses the file, and the generation before it and the log have everything."""
    engine, promised = _begun(forks, tmp_path / "data", tmp_path / "own")
    assert _seal(engine) == http.client.OK
    indexes = [file for file in (tmp_path / "data" / "core").rglob(INDEX_FILE) if file.stat().st_nlink == 1]
    os.truncate(max(indexes, key=lambda file: file.stat().st_mtime_ns), 0)
    with contextlib.suppress(OSError, http.client.HTTPException):
        engine.ask("POST", "/v1/search", search_body("note", collection="core"))
    assert os.WTERMSIG(forks.ended()) == 7  # SIGBUS, which a shell tells as 135
    successor = _again(forks, tmp_path / "data", tmp_path / "own")
    assert "skipped" in successor.told()
    assert successor.holds("core", NUMBERS) == promised.acknowledged
    successor.kill()


def test_a_pipe_in_place_of_a_manifest_holds_up_nobody(forks: Forks, tmp_path: Path) -> None:
    """Fault 119: what is no plain file is no generation."""
    engine, promised = _begun(forks, tmp_path / "data", tmp_path / "own")
    engine.kill()
    newer = tmp_path / "data" / "core" / "generation-00000009"
    newer.mkdir()
    os.mkfifo(newer / "manifest.json")
    successor = _again(forks, tmp_path / "data", tmp_path / "own")
    assert successor.holds("core", NUMBERS) == promised.acknowledged


def test_a_sync_of_a_second_holds_up_its_own_write_and_no_query(
    forks: Forks, tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """Fault 76: neither the loop nor the query workers wait for the disk."""
    engine, promised = _begun(forks, tmp_path / "data", tmp_path / "own")
    slow = f"inject=fdatasync:delay_enter={SYNC_SECONDS * 1e6:.0f}"
    answered, taken = list[float](), list[float]()
    with held_by_strace(engine.pid, ["-o", os.devnull, "-e", slow]):

        def write() -> None:
            assert promised.upsert(engine, "core", range(5), "slow").status == http.client.OK
            taken.append(time.monotonic())

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            query = search_body(f"note {len(answered)}", collection="core")
            assert engine.ask("POST", "/v1/search", query).status == http.client.OK
            assert engine.ask("GET", "/healthz").status == http.client.OK
            answered.append(time.monotonic())
        writer.join()
    meanwhile = sum(moment < taken[0] for moment in answered)
    publish(f"while one write waited {SYNC_SECONDS} s for its sync, {meanwhile} queries were answered")
    assert meanwhile > 1
    assert engine.holds("core", NUMBERS) == promised.acknowledged


def test_a_log_that_another_process_locks_refuses_writes_until_it_lets_go(forks: Forks, tmp_path: Path) -> None:
    """Fault 69: typed and retriable; what is there is answered all the while."""
    engine, promised = _begun(forks, tmp_path / "data", tmp_path / "own")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "core" / LOG_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE").close()
        reply = promised.upsert(engine, "core", range(3), "locked out")
        assert (reply.status, reply.json()["reason"]) == (503, "WriteFailed")
        assert engine.holds("core", NUMBERS) == promised.acknowledged
    assert promised.upsert(engine, "core", range(3), "let in").status == http.client.OK
    assert engine.holds("core", NUMBERS) == promised.acknowledged


def test_a_volume_without_inodes_refuses_a_seal_and_keeps_taking_writes(forks: Forks, tmp_path: Path) -> None:
    """Fault 77: and the seal is taken when there are some again."""
    require(os.geteuid() == 0, "mounting a tmpfs needs root")
    volume = tmp_path / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=100", "tmpfs", str(volume)], check=True)
    try:
        engine, promised = _begun(forks, volume / "data", tmp_path / "own")
        taken = list[Path]()
        with contextlib.suppress(OSError):
            for number in range(200):
                taken.append(volume / f"taken-{number}")
                taken[-1].touch()
        reply = engine.ask("POST", "/v1/collections/core/seal")
        assert (reply.status, reply.content_type) == (503, "application/problem+json")
        assert promised.upsert(engine, "core", range(5), "third").status == http.client.OK
        assert engine.holds("core", NUMBERS) == promised.acknowledged
        for file in taken:
            file.unlink(missing_ok=True)
        assert _seal(engine) == http.client.OK
        assert engine.holds("core", NUMBERS) == promised.acknowledged
        engine.kill()
    finally:
        subprocess.run(["umount", str(volume)], check=True)


def test_an_engine_without_descriptors_answers_again_when_it_has_some(forks: Forks, tmp_path: Path) -> None:
    """Fault 78: connections that it cannot accept wait; nothing that was acknowledged is lost."""
    engine, promised = _begun(forks, tmp_path / "data", tmp_path / "own")
    opened = len(list(Path(f"/proc/{engine.pid}/fd").iterdir()))
    most = opened + OPEN_FILES_MORE
    _, hard = resource.prlimit(engine.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(engine.pid, resource.RLIMIT_NOFILE, (most, hard))
    with contextlib.ExitStack() as connections:
        for _ in range(CONNECTIONS):
            connection = engine.connect()
            connections.callback(connection.close)
            connection.connect()
            assert isinstance(connection.sock, socket.socket)
    assert promised.upsert(engine, "core", range(5), "third").status == http.client.OK
    assert engine.ask("GET", "/healthz").status == http.client.OK
    assert engine.holds("core", NUMBERS) == promised.acknowledged
    assert _seal(engine) == http.client.OK
    assert engine.holds("core", NUMBERS) == promised.acknowledged
