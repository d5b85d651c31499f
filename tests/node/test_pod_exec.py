"""`membudget --pod`: into a pod's sidecar by exec, on a real kubelet. Runs before the uninstall, by its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from cluster.credentials import ADMIN, Credentials
from node.installed import NAMESPACE, READY_SECONDS, Installed
from node.sandbox import until

pytestmark = pytest.mark.node

Ask = Callable[..., "subprocess.CompletedProcess[str]"]


def membudget(installed: Installed, pod: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line beside the API server, with an administrator's KUBECONFIG."""
    kubeconfig = Credentials(installed.node.folder / "credentials").kubeconfig(ADMIN)
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "COLUMNS": "160"}
    argv = [sys.executable, "-m", "membudget_cli", *words, "--pod", f"{NAMESPACE}/{pod}"]
    beside = installed.node.sandbox.in_network(argv)
    return subprocess.run(beside, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def ask(installed: Installed) -> Ask:
    """The same, of the retrieval pod, once there is one; another test may have taken it away."""
    installed.node.kubectl("scale", "deploy/retriever", "-n", NAMESPACE, "--replicas=1")
    until(lambda: len(installed.ready_pods()) == 1, READY_SECONDS)
    return partial(membudget, installed, installed.pod().name)


@pytest.mark.parametrize("command", [("status",), ("explain",), ("top", "--once"), ("diagnose",), ("recommend",)])
def test_a_sidecar_in_a_pod_is_asked_by_exec(ask: Ask, command: tuple[str, ...]) -> None:
    """R-T03: an answer of the sidecar; codes of 1 are what it says of itself (problems, not seen long enough)."""
    answered = ask(*command)
    assert (True, "") == (answered.returncode in {0, 1}, answered.stderr), answered.stdout
    assert len(answered.stdout.splitlines()) > 3 or "nothing to recommend yet" in answered.stdout


def test_it_is_the_pod_that_was_named_and_the_engine_in_it(ask: Ask, installed: Installed) -> None:
    """R-T03: its own figures, and it holds the engine's connection."""
    status = json.loads(ask("status", "-o", "json").stdout)
    assert "Connected" == status["engine"]
    assert status["budgetBytes"] <= installed.limit(installed.pod(), "engine")


def test_an_action_asked_by_exec_is_carried_out_and_told(ask: Ask) -> None:
    """R-T03: bodies go the same way."""
    acted = ask("act", "Collect", "-o", "json")
    record = json.loads(acted.stdout)
    assert (0, "Collect") == (acted.returncode, record["kind"])


def test_a_pod_without_a_sidecar_is_told_so(installed: Installed) -> None:
    """R-T03: a sentence and exit code 1."""
    answered = membudget(installed, installed.controller().name, "status")
    assert (1, True) == (answered.returncode, "has no sidecar" in answered.stderr)
