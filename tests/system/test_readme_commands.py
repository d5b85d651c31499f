"""The commands of README.md, docs/api/README.md and docs/api/engine.md that need no cluster, typed as they stand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from documents import ROOT, Block, blocks, command_blocks
from membudget_cli.programs import free_port
from memory_cgroup import require

README = ROOT / "README.md"
API = ROOT / "docs" / "api" / "README.md"
ENGINE_API = ROOT / "docs" / "api" / "engine.md"
SECONDS = 240
"""Of patience, on a machine that many share: building the index alone takes 10 s of processor time."""
PATIENT_CURL = 'curl() { command curl --silent --show-error --retry 60 --retry-delay 1 --retry-connrefused "$@"; }'
"""A person waits for an engine to be ready before they ask it."""
WAIT_FOR_THE_SIDECAR = "until command membudget status --run run > /dev/null 2>&1; do sleep 0.2; done"
TYPED_HERE = ("A policy", "Try it on what you have")
MAKE = ("See it", "Test it")
IN_A_CLUSTER = ("In a cluster",)
"""Typed by tests/cluster/test_documents_in_a_cluster.py."""


def block_under(heading: str) -> Block:
    """The commands of that section of the README."""
    (found,) = (block for block in command_blocks(README) if block.heading == heading)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's policy."""
    (policy,) = (block.text for block in blocks(README) if block.language == "yaml")
    (tmp_path / "policy.yaml").write_text(policy)
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """A wide terminal, and `export PATH=$PWD/.venv/bin:$PATH` done."""
    return os.environ | {"COLUMNS": "160", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_every_block_of_the_readme_is_typed_by_a_test() -> None:
    """R-T03: here, in a cluster, or by `make` itself."""
    headings = [block.heading for block in command_blocks(README)]
    assert sorted(headings) == sorted([*TYPED_HERE, *MAKE, *IN_A_CLUSTER])
    for heading in MAKE:
        assert all(line.startswith("make ") for line in block_under(heading).lines())


@pytest.mark.cgroup
def test_an_engine_and_a_sidecar_are_built_served_asked_and_ended(folder: Path, environment: dict[str, str]) -> None:
    """R-S12, R-S09, R-T03: with what docs/api tells to ask its socket; in a network of its own, the port is fixed."""
    require(os.geteuid() == 0, "a network namespace needs root")
    lines = block_under("A policy").lines()
    asked = [line.replace("$PWD/.venv", str(ROOT / ".venv")) for line in lines]
    status = next(place for place, line in enumerate(asked) if line.startswith("membudget status"))
    (block,) = command_blocks(API)
    api = [line.replace("/run/membudget/", "run/") for line in block.lines()]
    script = [*asked[:status], WAIT_FOR_THE_SIDECAR, asked[status], *api, *asked[status + 1 :]]
    ran = typed([*script, "wait || true"], folder, environment)
    expected = [
        '"hits":',
        "policy   retrieval",
        "ResidentSetSize",
        "engine   Connected",
        "stdlib",
        '"rungs":',
        '"kind":"Evict"',
    ]
    assert (0, []) == (ran.returncode, [text for text in expected if text not in ran.stdout]), ran.stdout + ran.stderr


@pytest.mark.cgroup
def test_the_page_of_the_engines_api_writes_what_it_then_finds(folder: Path, environment: dict[str, str]) -> None:
    """R-E16, R-E18: all of its commands in one folder, one after the other; nothing is refused."""
    require(os.geteuid() == 0, "a network namespace needs root")
    lines = [line for block in command_blocks(ENGINE_API) for line in block.lines()]
    ran = typed([*lines, "kill %1", "wait || true"], folder, environment)
    told = (ran.returncode, "refused" in ran.stdout, "open a file, part" in ran.stdout)
    assert (0, False, True) == told, ran.stdout + ran.stderr


def typed(lines: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What a shell says to these lines, in a network of its own."""
    script = "\n".join(["set -em", "ip link set lo up", PATIENT_CURL, *lines])
    return subprocess.run(
        ["unshare", "--net", "bash", "-c", script],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def test_a_service_that_knows_nothing_is_observed_recorded_and_replayed(
    folder: Path, environment: dict[str, str]
) -> None:
    """R-S14, R-T03: its name is the script's; the first command goes on until Ctrl-C."""
    service = folder / "my-service"
    service.write_text("#!/usr/bin/env python3\nimport time\nwhile True:\n    time.sleep(0.1)\n")
    service.chmod(0o755)
    observe, replay = block_under("Try it on what you have").commands()
    port = f"--port={free_port()}"
    with subprocess.Popen([str(service)], env=environment) as running:
        sidecar = subprocess.Popen(
            ["env", "--default-signal=INT", *observe, port],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: (folder / "looks").is_file() and (folder / "looks").stat().st_size > 0, sidecar)
            time.sleep(2.0)  # some looks more: a recording of one says nothing
            sidecar.send_signal(signal.SIGINT)
            _, log = sidecar.communicate(timeout=20)
        finally:
            sidecar.kill()
            running.kill()
    assert (0, False) == (sidecar.returncode, "Traceback" in log), log
    replayed = subprocess.run(
        replay, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert replayed.returncode == 0, replayed.stderr
    assert re.search(r"\d+ looks; peak \d", replayed.stdout), replayed.stdout


def until(condition: Callable[[], bool], alive: subprocess.Popen[str]) -> None:
    """Wait for it while that process lives."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert (None, True) == (alive.poll(), time.monotonic() < deadline)
        time.sleep(0.1)
