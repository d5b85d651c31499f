"""The plain manifests: what the chart renders, and nothing that only helm reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from charts.rendering import Chart, Object
from charts.tools import find_tools

SCRIPTS = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """File -> its objects."""
    folder = tmp_path_factory.mktemp("manifests")
    script = f"import manifests, pathlib; manifests.write(pathlib.Path({str(folder)!r}))"
    path = {**os.environ, "PATH": f"{find_tools().folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-c", script], cwd=SCRIPTS, env=path, check=True)
    return {file.stem: list(yaml.safe_load_all(file.read_text())) for file in sorted(folder.iterdir())}


def names(objects: list[Object]) -> list[tuple[str, str]]:
    """Kinds and names, sorted."""
    return sorted((found["kind"], found["metadata"]["name"]) for found in objects)


def test_they_are_all_that_helm_would_install(written: dict[str, list[Object]]) -> None:
    """R-T05: and the namespace, under Pod Security `restricted`."""
    chart = Chart(find_tools().helm)
    plain = written["membudget"]
    namespace = ("Namespace", "membudget-system")
    assert sorted([namespace, *names(chart.render({}).objects)]) == names(plain)
    for file, values in (("example", {}), ("example-with-writer", {"writer": {"enabled": True}})):
        asked = names(chart.render({"example": {"enabled": True, **values}}).objects)
        assert sorted(set(asked) - set(names(chart.render({}).objects))) == names(written[file])
    (space,) = [found for found in plain if found["kind"] == "Namespace"]
    assert {"pod-security.kubernetes.io/enforce": "restricted"} == space["metadata"]["labels"]


def test_what_others_need_comes_first(written: dict[str, list[Object]]) -> None:
    """R-T05: kubectl applies in the order of the file."""
    kinds = [found["kind"] for found in written["membudget"]]
    assert ["Namespace", "CustomResourceDefinition", "ServiceAccount", "Secret"] == kinds[:4]
    assert kinds.index("Deployment") > max(kinds.index("ClusterRoleBinding"), kinds.index("RoleBinding"))


def test_nothing_in_them_is_helms(written: dict[str, list[Object]]) -> None:
    """R-T05: an object that says helm manages it would be taken for one of a release."""
    words = [word for objects in written.values() for found in objects for word in texts(found["metadata"])]
    words += [word for objects in written.values() for found in objects for word in texts(found.get("spec", {}))]
    assert [] == [word for word in words if "helm" in word.lower()]


def test_the_example_is_of_no_namespace(written: dict[str, list[Object]]) -> None:
    """R-T05: kubectl says where it goes."""
    examples = [*written["example"], *written["example-with-writer"]]
    assert [] == [found for found in examples if "namespace" in found["metadata"]]


def texts(part: Any) -> list[str]:
    """All names and values in it."""
    if isinstance(part, dict):
        return [word for name, value in cast("Object", part).items() for word in (name, *texts(value))]
    if isinstance(part, list):
        return [word for each in cast("list[Any]", part) for word in texts(each)]
    return [str(part)]
