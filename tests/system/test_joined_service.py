"""A service that is not ours in style joins with a few lines, and the same sidecar manages it."""

from __future__ import annotations

import ast
import contextlib
import http.client
import json
import random
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from membudget_cli.programs import free_port
from membudget_cli.sidecar_client import SOCKET, SidecarClient, UnixSocket
from membudget_contract.breakdown_api import Breakdown
from membudget_contract.quantities import MIB
from system.serving import START_SECONDS, holds_plan, until

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "examples" / "faiss_service.py"
POLICY = ROOT / "examples" / "policy.yaml"
QUESTIONS = 2500
LINES_TO_JOIN = 8


@dataclass(frozen=True)
class Joined:
    """The service's process, its port, its sidecar, the policy that the sidecar follows."""

    process: subprocess.Popen[bytes]
    port: int
    sidecar: UnixSocket
    policy: Path

    @property
    def client(self) -> SidecarClient:
        """Typed questions to the sidecar."""
        return SidecarClient(self.sidecar)

    def anonymous(self) -> int:
        """RssAnon, as the kernel shows it to another process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    def owned(self) -> dict[str, int]:
        """Bytes of its components, as the sidecar tells them."""
        _, answer = self.sidecar.ask("GET", "/v1/breakdown", None)
        components = msgspec.json.decode(answer, type=Breakdown).components
        return {component.name: component.counted_bytes or 0 for component in components}


@contextlib.contextmanager
def joined(folder: Path) -> Generator[Joined]:
    """Both running; the service over 3,000 paragraphs of random words."""
    chance, texts, run, policy = random.Random(1), folder / "texts", folder / "run", folder / "policy.yaml"
    texts.mkdir()
    words = [f"word{number:04}" for number in range(5000)]
    paragraphs = (" ".join(chance.choices(words, k=220)) for _ in range(3000))
    (texts / "all.txt").write_text("\n\n".join(paragraphs))
    policy.write_text(POLICY.read_text())
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(SERVICE), f"--texts={texts}", f"--port={port}", f"--run={run}", f"--state={folder / 'a'}"]
    )
    sidecar = subprocess.Popen(
        [sys.executable, "-m", "membudget_sidecar", f"--run={run}", f"--state={folder / 'sidecar'}",
         f"--policy={policy}", f"--port={free_port()}"]
    )  # fmt: skip
    try:
        service = Joined(process, port, UnixSocket(run / SOCKET), policy)
        until(lambda: holds_plan(service.client), START_SECONDS)
        yield service
    finally:
        for started in (sidecar, process):
            started.terminate()
            started.wait(timeout=20)


def ask(port: int, questions: range) -> int:
    """Each question once, over one connection; how many were answered."""
    connection, answered = http.client.HTTPConnection("127.0.0.1", port, timeout=20), 0
    for number in questions:
        query = urllib.parse.urlencode({"q": f"word{number % 5000:04} word{number * 7 % 5000:04} {number}"})
        connection.request("GET", f"/search?{query}")
        response = connection.getresponse()
        answered += response.status == 200 and len(json.loads(response.read())["found"]) == 10
    connection.close()
    return answered


def test_a_foreign_service_gives_its_own_dicts_back_when_its_budget_is_lowered(
    tmp_path: Path, publish: Callable[[str], None]
) -> None:
    """R-E23: bytes as the kernel shows them from outside; it goes on answering, and stays within the new budget."""
    with joined(tmp_path) as service:
        assert ask(service.port, range(QUESTIONS)) == QUESTIONS
        until(lambda: service.owned()["answers"] > 40 * MIB, 20)  # the sidecar's next look
        full, held = service.anonymous(), service.owned()
        service.policy.write_text(POLICY.read_text().replace("150Mi", "80Mi").replace("60Mi", "15Mi"))
        until(lambda: service.anonymous() < full - 25 * MIB and service.owned()["answers"] <= 15 * MIB, 20)
        left, given = service.anonymous(), service.owned()
        assert ask(service.port, range(QUESTIONS, 2 * QUESTIONS)) == QUESTIONS
        again = service.anonymous()
        until(lambda: service.client.status().engine == "Connected", 20)
    publish(
        f"a foreign service: {full / MIB:.1f} MiB anonymous, {left / MIB:.1f} when its budget was lowered from 150 to "
        f"80 MiB, {again / MIB:.1f} after {QUESTIONS} more questions"
    )
    assert held["index"] == given["index"] > 2 * MIB
    assert again < 0.85 * 80 * MIB


def test_joining_takes_a_few_lines() -> None:
    """R-E23: one function beside the service's own code, and nothing of membudget anywhere else in it."""
    tree = ast.parse(SERVICE.read_text())
    (join,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "join"]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & {"MemoryRuntime", "Track"}
    inside = {node.id for node in ast.walk(join) if isinstance(node, ast.Name)} & {"MemoryRuntime", "Track"}
    assert (join.end_lineno or 0) - join.lineno < LINES_TO_JOIN
    assert names == inside == {"MemoryRuntime", "Track"}
