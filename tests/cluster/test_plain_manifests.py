"""The plain manifests on a real API server, applied twice, with a controller in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charts.tools import find_tools
from cluster.control_plane import ControlPlane
from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from cluster.installation import until

pytestmark = pytest.mark.cluster

DEPLOY = Path(__file__).parents[2] / "deploy"
KEYS = ("secret", "membudget-controller-keys", "-n", OWN_NAMESPACE)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make manifests` fills."""
    folder = tmp_path_factory.mktemp("manifests")
    script = f"import manifests, pathlib; manifests.write(pathlib.Path({str(folder)!r}))"
    path = {**os.environ, "PATH": f"{find_tools().folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-c", script], cwd=DEPLOY, env=path, check=True)
    return folder


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A cluster in which nothing is installed."""
    with ControlPlane(tmp_path) as running:
        yield running


def test_applied_twice_they_are_the_same_and_the_keys_stay(
    plane: ControlPlane, manifests: Path, tmp_path: Path
) -> None:
    """R-T05, R-P08: the second time writes nothing; what the controller and people wrote meanwhile stays."""

    def apply(file: str, *options: str) -> None:
        plane.kubectl("apply", "--server-side", "-f", str(manifests / file), *options)

    apply("membudget.yaml")
    plane.kubectl("wait", "--for=condition=Established", "crd/memorypolicies.membudget.dev")
    apply("example.yaml", "--namespace=default")
    assert {} == _get(plane, *KEYS).get("data", {})
    controller = ControllerProcess(plane, tmp_path / "controller.log")
    until(controller.is_ready)
    assert 0 == controller.stop()
    held = _get(plane, *KEYS)["data"]
    assert held
    before = _kept(plane, manifests)
    apply("membudget.yaml")
    apply("example.yaml", "--namespace=default")
    assert (held, before) == (_get(plane, *KEYS)["data"], _kept(plane, manifests))


def test_the_controller_has_the_same_rights_as_by_helm(plane: ControlPlane, manifests: Path) -> None:
    """R-T05: it may read its own Secret and nobody else's."""
    plane.kubectl("apply", "--server-side", "-f", str(manifests / "membudget.yaml"))
    account = f"--as=system:serviceaccount:{OWN_NAMESPACE}:membudget-controller"

    def may(*what: str) -> str:
        return plane.kubectl("auth", "can-i", *what, account, check=False).stdout.strip()

    own = ("secret/membudget-controller-keys", "-n", OWN_NAMESPACE)
    asked = [
        *(("patch", *own), ("get", *own), ("watch", "memorypolicies", "-A"), ("list", "pods", "-A")),
        *(("update", *own), ("list", "secrets", "-n", OWN_NAMESPACE), ("get", "secret/a", "-n", "default")),
        ("patch", "pods/resize", "-A"),
    ]
    assert ["yes"] * 4 + ["no"] * 4 == [may(*what) for what in asked]


def _kept(plane: ControlPlane, manifests: Path) -> dict[str, str]:
    """Kind and name of each object -> its resourceVersion, which any write that changes something raises."""
    applied = [("membudget.yaml",), ("example.yaml", "--namespace=default")]
    items = [item for file, *more in applied for item in _get(plane, "-f", str(manifests / file), *more)["items"]]
    assert len(items) == sum((manifests / file).read_text().count("\nkind: ") for file, *_ in applied)
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in items}


def _get(plane: ControlPlane, *arguments: str) -> Any:
    return json.loads(plane.kubectl("get", *arguments, "-o", "json").stdout)
