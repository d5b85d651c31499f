"""docs/install.md as a person follows it: every command of its `sh` blocks, in order, against a real API server.

What has no API server to ask, `console` blocks, is held against the repository: targets, files and arguments exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from charts.tools import find_tools
from cluster.binaries import find_binaries
from cluster.control_plane import ControlPlane
from cluster.installation import until

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "install.md").read_text()
STAYS = ("crd/memorypolicies.membudget.dev", "secret/membudget-controller-keys")


def commands(language: str) -> list[list[str]]:
    """One line each, as the shell splits it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A cluster with the Prometheus operator's kinds, and nothing of ours."""
    with ControlPlane(tmp_path) as running:
        for definition in find_tools().operator_definitions:
            running.kubectl("apply", "--server-side", "-f", str(definition))
        yield running


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which the paths of the document lead to this repository, and `make manifests` was run."""
    folder = tmp_path / "checkout"
    manifests = folder / "dist" / "manifests"
    manifests.mkdir(parents=True)
    (folder / "charts").symlink_to(ROOT / "charts")
    script = f"import manifests, pathlib; manifests.write(pathlib.Path({str(manifests)!r}))"
    path = {**os.environ, "PATH": f"{find_tools().folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT / "deploy", env=path, check=True)
    return folder


@pytest.mark.cluster
def test_every_command_works_as_written(plane: ControlPlane, checkout: Path) -> None:
    """R-T05: by Helm, in single namespaces and by plain manifests; what is said to stay is there after an uninstall."""
    path = os.pathsep.join([str(find_tools().folder), str(find_binaries().folder), os.environ["PATH"]])
    own = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "PATH": path, "HOME": str(checkout)}
    written = commands("sh")
    assert {"helm", "kubectl"} == {command[0] for command in written}

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        inside = plane.inside(command)
        return subprocess.run(inside, cwd=checkout, env=own, capture_output=True, text=True, check=False, timeout=120)

    for command in written:
        if "explain" in command:
            # What a new kind's fields mean is published some moments after the kind itself is served.
            until(lambda: run(["kubectl", "explain", "mempol.spec.budget"]).returncode == 0)
        done = run(command)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        if command[:2] == ["helm", "uninstall"] and "membudget-system" in command:
            _check_it_stays(plane)
    _check_it_stays(plane)  # the last commands uninstall what kubectl applied


def _check_it_stays(plane: ControlPlane) -> None:
    for name in STAYS:
        plane.kubectl("get", name, "--namespace=membudget-system")
    listed = plane.kubectl("get", "mempol", "--all-namespaces", "-o", "name").stdout
    assert ["memorypolicy.membudget.dev/retriever", "memorypolicy.membudget.dev/retriever-writer"] == listed.split()
    left = plane.kubectl("get", "deployment,clusterrole", "-A", "-l", "app.kubernetes.io/component=controller").stdout
    assert "" == left


def test_what_needs_no_cluster_is_there() -> None:
    """R-T05: targets of the makefile, the compose file, the tags of the images."""
    version = yaml.safe_load((ROOT / "charts" / "membudget" / "Chart.yaml").read_text())["version"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    written = commands("console")
    assert {"make", "docker", "curl"} == {command[0] for command in written}
    assert [] == [command for command in written if command[0] == "make" and not set(command[1:]) <= targets]
    assert set(re.findall(r"`make ([a-z-]+)`", DOCUMENT)) <= targets
    files = [word for command in written if command[1:3] == ["compose", "-f"] for word in command[3:4]]
    assert ([True] * 3, 3) == ([(ROOT / file).is_file() for file in files], len(files))
    tags = set(re.findall(r"membudget-\w+[:-](\d+\.\d+\.\d+)", DOCUMENT))
    assert {version} == tags
