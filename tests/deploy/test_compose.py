"""The compose file: read by the specification's own reader, and its commands run as the processes they are.

No container engine is needed: each service runs in a memory cgroup of the size that the file gives it, with its volumes
as folders. What an engine adds, its namespaces and a read-only root, is asked of a kubelet in tests/node.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.programs import read
from charts.tools import find_tools
from membudget_contract.compile import compile_policy
from membudget_contract.policy import parse_policy
from membudget_contract.quantities import MIB
from membudget_engine.health_check import CHECK_SECONDS
from memory_cgroup import MemoryCgroup, memory_cgroup

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
MEMBERS = {"index": "engine", "engine": "engine", "sidecar": "sidecar"}
SECONDS = 60.0


def limit(service: str) -> int:
    """Bytes; a container engine reads `m` as MiB."""
    return int(SERVICES[service]["mem_limit"].removesuffix("m")) * MIB


def test_the_specifications_reader_takes_it(tmp_path: Path) -> None:
    """R-T05: every field known, every reference between services and volumes resolved; and a wrong one is refused."""
    command = [str(find_tools().compose_spec), "--format=json"]
    read_back = subprocess.run([*command, str(FILE)], capture_output=True, text=True, check=False)
    assert (0, "") == (read_back.returncode, read_back.stderr)
    assert set(SERVICES) == set(json.loads(read_back.stdout)["services"])
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("mem_limit: 200m", "memory_limit: 200m"))
    refused = subprocess.run([*command, str(wrong)], capture_output=True, text=True, check=False)
    assert (True, True) == (refused.returncode != 0, "memory_limit" in refused.stderr + refused.stdout)


@pytest.mark.parametrize("service", MEMBERS)
def test_every_service_is_as_closed_as_its_pod(service: str) -> None:
    """R-T06: no root, no writable root, no capability, and no swap that would hide a limit."""
    found = SERVICES[service]
    assert ("65532:65532", True, ["ALL"], ["no-new-privileges:true"]) == (
        found["user"],
        found["read_only"],
        found["cap_drop"],
        found["security_opt"],
    )
    assert found["mem_limit"] == found["memswap_limit"]
    assert f"membudget-{MEMBERS[service]}" == found["image"].partition(":")[0]


def test_the_engine_has_200_mb_and_the_health_command() -> None:
    """R-T05: MB means MiB; the command has more time than it takes, and is the engine's own `check`."""
    engine = SERVICES["engine"]
    health = engine["healthcheck"]
    assert (200 * MIB, ["CMD", "python3", "-m", "membudget_engine", "check"]) == (limit("engine"), health["test"])
    assert 2 * CHECK_SECONDS < float(health["timeout"].removesuffix("s"))
    serve = read("engine", engine["command"])
    assert (8080, "127.0.0.1:8080:8080", f"{serve.grace:.0f}s") == (
        serve.port,
        *engine["ports"],
        engine["stop_grace_period"],
    )
    assert 8080 == read("engine", health["test"][4:]).port


def test_the_sidecar_sees_the_engine_and_follows_the_file() -> None:
    """R-S12: one process namespace, one control folder, the policy's folder mounted read-only."""
    sidecar = SERVICES["sidecar"]
    arguments = read("sidecar", sidecar["command"])
    targets = {volume.split(":")[1]: volume.split(":")[0] for volume in sidecar["volumes"]}
    assert ("service:engine", "./policy", "run") == (
        sidecar["pid"],
        targets[str(arguments.policy.parent)],
        targets[str(arguments.run)],
    )
    assert "run:/run/membudget" in SERVICES["engine"]["volumes"]
    assert f"./policy:{arguments.policy.parent}:ro" in sidecar["volumes"]
    assert "75%" == compile_policy(parse_policy(yaml.safe_load((FOLDER / "policy" / "policy.yaml").read_text()))).total


class Stack:
    """The services as processes; volumes are folders of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "policy" / "policy.yaml"
        shutil.copytree(FOLDER / "policy", self.policy.parent)
        self._port = _free_port()
        self.sidecar_port = _free_port()
        self._cgroups: dict[str, MemoryCgroup] = {}
        self._ended = contextlib.ExitStack()

    def start(self, service: str, *more: str) -> subprocess.Popen[Any]:
        """Its command, in a cgroup of its limit."""
        self._cgroups[service] = self._ended.enter_context(memory_cgroup(limit(service)))
        return self._run(service, [*self._arguments(service), *more])

    def serve(self) -> subprocess.Popen[Any]:
        """The engine, at a port that is free here."""
        return self.start("engine", f"--port={self._port}")

    def health(self) -> int:
        """The exit code of the health command, run where a container engine runs it: inside the engine's limit."""
        return self._run("engine", [*SERVICES["engine"]["healthcheck"]["test"][4:], f"--port={self._port}"]).wait(
            SECONDS
        )

    def budget(self) -> float | None:
        """What the sidecar holds the engine to, as it tells Prometheus; None while it cannot say."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.sidecar_port}/metrics", timeout=10) as answer:
                lines: list[str] = answer.read().decode().splitlines()
        except OSError:
            return None
        figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        connected = figures.get("membudget_engine_up") == "1.0"
        return float(figures["membudget_budget_bytes"]) if connected and "membudget_budget_bytes" in figures else None

    def oom_kills(self) -> dict[str, int]:
        """By service, from the kernel."""
        return {service: cgroup.oom_kills() for service, cgroup in self._cgroups.items()}

    def close(self) -> None:
        """End everything."""
        self._ended.close()

    def _arguments(self, service: str) -> list[str]:
        """With the folders that stand for volumes, where an option names one of them."""
        targets = {target: source for source, target, *_ in (v.split(":") for v in SERVICES[service]["volumes"])}
        arguments: list[str] = []
        for argument in SERVICES[service]["command"]:
            option, _, path = argument.partition("=")
            mounted = next((target for target in targets if path.startswith(target)), None)
            within = path if mounted is None else str(self.folder / targets[mounted]) + path.removeprefix(mounted)
            arguments.append(f"{option}={within}" if path else option)
        return arguments

    def _run(self, service: str, arguments: list[str]) -> subprocess.Popen[Any]:
        command = [sys.executable, "-m", f"membudget_{MEMBERS[service]}", *arguments]
        with (self.folder / f"{service}.log").open("ab") as log:
            return self._cgroups[service].run(command, stdout=log, stderr=log)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Nothing started yet; ended after the test."""
    made = Stack(tmp_path)
    yield made
    made.close()


@pytest.mark.cgroup
def test_its_commands_serve_within_their_limits_and_tell_their_health(
    stack: Stack, publish: Callable[[str], None]
) -> None:
    """R-T05, R-S12: index, serve, healthy or not by exit code, the policy edited while it runs, and an end in time."""
    assert 0 == stack.start("index").wait(SECONDS)
    engine = stack.serve()
    assert 1 == stack.health()  # it has only begun
    sidecar = stack.start("sidecar", f"--port={stack.sidecar_port}")
    _until(lambda: stack.health() == 0)
    _until(lambda: stack.budget() == 150 * MIB)
    stack.policy.write_text(stack.policy.read_text().replace("75%", "60%"))
    _until(lambda: stack.budget() == 120 * MIB)
    engine.send_signal(signal.SIGSTOP)
    assert 1 == stack.health()
    engine.send_signal(signal.SIGCONT)
    _until(lambda: stack.health() == 0)
    began = time.monotonic()
    for process in (sidecar, engine):
        process.terminate()
    assert [0, 0] == [process.wait(30.0) for process in (sidecar, engine)]
    publish(f"compose stack: sidecar and engine ended {time.monotonic() - began:.1f} s after their signals")
    assert ({"index": 0, "engine": 0, "sidecar": 0}, 1) == (stack.oom_kills(), stack.health())


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
