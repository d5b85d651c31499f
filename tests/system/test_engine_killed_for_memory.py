"""The kernel's OOM killer strikes an engine that writes and is asked: its successor has all that was acknowledged."""

from __future__ import annotations

import http.client
import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.engine_process import Reply, ask, search_body
from engine.written import notes
from membudget_contract.quantities import MIB
from memory_cgroup import memory_cgroup
from system.serving import until
from system.test_budget_halved import Pressed

LIMIT = 256 * MIB
BATCH = 20

pytestmark = pytest.mark.cgroup

_EATING = """
import time
held = []
while True:
    held.append(b"x" * (4 << 20))
    time.sleep(0.01)
"""
_CHOSEN_FIRST = "1000"


class Worker(threading.Thread):
    """Asks one thing after the other until the engine is gone; how many were answered with 200."""

    def __init__(self, port: int, request: Callable[[int], tuple[str, bytes]]) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self.refused: Reply | None = None
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._request = request

    def run(self) -> None:
        """The end of the engine ends it."""
        for number in itertools.count():
            path, body = self._request(number)
            try:
                reply = ask(self._connection, "POST", path, body)
            except (OSError, http.client.HTTPException):
                return
            if reply.status != http.client.OK:
                self.refused = reply
                return
            self.answered += 1


def _write(number: int) -> tuple[str, bytes]:
    batch = notes(range(number * BATCH, (number + 1) * BATCH), "written")
    return "/v1/chunks/notes", msgspec.json.encode({"chunks": batch})


def _search(number: int) -> tuple[str, bytes]:
    return "/v1/search", search_body(f"written {number}", collection="notes")


def test_an_engine_killed_for_memory_in_the_middle_of_writes_and_queries_has_every_acknowledged_one(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E18, fault 56: the memory is eaten by a neighbour in the cgroup; the kernel is told whom to kill."""
    folder = tmp_path / "engine"
    folder.mkdir()
    with memory_cgroup(LIMIT) as cgroup:
        pressed = Pressed(cgroup, tmp_path / "data", folder)
        writer, searcher = Worker(pressed.port, _write), Worker(pressed.port, _search)
        writer.start()
        until(lambda: writer.answered > 0, 30)
        searcher.start()
        until(lambda: writer.answered > 5 and searcher.answered > 5, 30)
        Path(f"/proc/{pressed.engine.pid}/oom_score_adj").write_text(_CHOSEN_FIRST)
        eater = cgroup.run([sys.executable, "-c", _EATING])
        until(lambda: pressed.engine.poll() is not None, 60)
        eater.kill()
        eater.wait()
        for worker in (writer, searcher):
            worker.join()
        assert (pressed.engine.returncode, cgroup.oom_kills() > 0) == (-9, True)
        successor = Pressed(cgroup, tmp_path / "data", folder)
        connection = http.client.HTTPConnection("127.0.0.1", successor.port, timeout=30)
        missing = [
            number
            for number in range(writer.answered * BATCH)
            if ask(connection, "GET", f"/v1/chunks/notes/note-{number}").status != http.client.OK
        ]
        (view,) = ask(connection, "GET", "/v1/collections").json()
        connection.close()
    publish(
        f"killed for memory after {writer.answered} acknowledged writes of {BATCH} notes and {searcher.answered} "
        f"queries: {view['count']} notes are there, none that was acknowledged is missing"
    )
    assert (missing, writer.refused, searcher.refused) == ([], None, None)
    assert view["count"] % BATCH == 0
    assert writer.answered * BATCH <= view["count"] <= (writer.answered + 1) * BATCH
