"""README.md and docs/runbooks as a person follows them: what they say of a cluster, typed against a real API server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from charts.tools import find_tools
from cluster.binaries import find_binaries
from cluster.control_plane import ControlPlane
from documents import ROOT, command_blocks

pytestmark = pytest.mark.cluster

README = ROOT / "README.md"
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
POD = """
apiVersion: v1
kind: Pod
metadata: {namespace: search, name: retriever-0, labels: {app: retriever, membudget.dev/managed: "true"}}
spec:
  nodeName: node-1
  shareProcessNamespace: true
  initContainers:
  - {name: membudget, image: none, restartPolicy: Always, ports: [{name: membudget, containerPort: 9465}]}
  containers:
  - {name: engine, image: none, resources: {limits: {memory: 200Mi}}}
"""
"""Of whom the runbooks speak, on a node that is not there."""
NO_KUBELET = r"node-1|timed out waiting for the condition"
"""What is said of a pod's node, and of a deployment whose pods nobody made."""

Type = Callable[[list[str]], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster with nothing of ours."""
    with ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        yield running


@pytest.fixture(scope="module")
def typed(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Type:
    """Runs a command where the README's paths lead to this repository and `policy.yaml` is the README's."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "charts").symlink_to(ROOT / "charts")
    (folder / "policy.yaml").write_text(re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)[0])
    programs = [Path(sys.executable).parent, find_tools().folder, find_binaries().folder]
    path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
    own = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "PATH": path, "HOME": str(folder), "COLUMNS": "160"}

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        inside = plane.inside(command)
        return subprocess.run(inside, cwd=folder, env=own, capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.fixture(scope="module")
def installed(typed: Type, plane: ControlPlane) -> dict[str, str]:
    """What each command of the README's section printed, in order; then there is the pod of the runbooks."""
    (block,) = (block for block in command_blocks(README) if block.heading == "In a cluster")
    said: dict[str, str] = {}
    for command in block.commands():
        done = typed(command)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        said[" ".join(command[:2])] = done.stdout
    plane.apply(POD)
    return said


def test_the_readme_installs_applies_lists_and_lints(installed: dict[str, str]) -> None:
    """R-T05, R-P01, R-T03: its policy is one that the API server takes, and is listed in the README's columns."""
    shown = next(line for line in README.read_text().splitlines() if line.startswith("NAMESPACE"))
    (heading, row) = installed["kubectl get"].splitlines()
    assert (shown.split(), ["search", "retrieval"]) == (heading.split(), row.split()[:2])
    assert "deployed" in installed["helm install"]


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
@pytest.mark.usefixtures("installed")
def test_what_a_runbook_asks_the_cluster_is_answered(page: Path, typed: Type) -> None:
    """R-T04: each command as written; where a kubelet would answer, all but the kubelet does."""
    for block in command_blocks(page):
        for command in block.commands():
            done = typed(command)
            answer = f"{shlex.join(command)}: {done.returncode} {done.stdout}{done.stderr}"
            if needs_a_node(command):
                assert re.search(NO_KUBELET, done.stderr), answer
            elif command[0] == "membudget":
                # 1 is an answer: there is no controller, and a policy may be doubtful.
                assert (True, "") == (done.returncode in {0, 1}, done.stderr), answer
            else:
                assert done.returncode == 0, answer


def needs_a_node(command: list[str]) -> bool:
    """What the API server hands on to a kubelet, and there is none: logs, and everything by exec."""
    return "logs" in command or "exec" in command or "--pod" in command
