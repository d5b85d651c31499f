"""What helm makes of the chart: rendered without any cluster, parsed, and asked for by kind and name.

Covers: `helm template`, refusals in helm's own words, and the sets of values with which every manifest is checked. What
an API server says to them is asked in tests/cluster. Neighbours: `tools` (which helm).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "membudget"
FILES = CHART / "files"
RELEASE = "kept"
NAMESPACE = "own"

Object = dict[str, Any]
Values = Mapping[str, Any]

MONITORED: Values = {
    "podMonitor": {"enabled": True, "additionalLabels": {"release": "stack"}},
    "rules": {
        "enabled": True,
        "additionalLabels": {"release": "stack"},
        "runbookBaseUrl": "https://example.com/runbooks",
    },
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Memory"}},
}
NAMESPACED: Values = {
    "controller": {"watchNamespaces": ["search", "2nd-team"]},
    "crds": {"enabled": False},
    "aggregatedRoles": {"enabled": False},
}
VALUE_SETS: Mapping[str, Values] = {
    "defaults": {},
    "example": {"example": {"enabled": True, "replicas": 3}},
    "writer": {"example": {"enabled": True, "writer": {"enabled": True}}},
    "namespaced": {**NAMESPACED, "observability": {"podMonitor": {"enabled": True}}},
    "least": {
        "crds": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "aggregatedRoles": {"enabled": False},
    },
    "everything": {
        "images": {
            "registry": "registry.example.com:5000/team",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "credentials"}],
        },
        "controller": {
            "tag": "1.2.3",
            "resizePods": True,
            "podLabels": {"team": "search", "app.kubernetes.io/component": "mine"},
            "podAnnotations": {"example.com/note": "yes"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "search", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}]}},
            "priorityClassName": "system-cluster-critical",
            "resources": {"limits": {"cpu": 1}},
        },
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "observability": MONITORED,
        "example": {"enabled": True, "name": "search", "tag": "1.2.3", "memoryLimit": "1Gi", "writer": {
            "enabled": True, "accessMode": "ReadWriteMany", "storageClassName": "shared.example.com"}},
    },
}  # fmt: skip
"""Every template with and without each of its branches."""


class Manifests:
    """The objects of one rendering."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def of(self, kind: str) -> list[Object]:
        """All of a kind."""
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The only one of that kind and name."""
        (found,) = [found for found in self.of(kind) if found["metadata"]["name"] == name]
        return found

    def has(self, kind: str, name: str) -> bool:
        """Whether there is one."""
        return any(found["metadata"]["name"] == name for found in self.of(kind))


class Chart:
    """The chart in a folder, and a helm."""

    def __init__(self, helm: Path, folder: Path = CHART) -> None:
        self._helm = helm
        self._folder = folder
        self._rendered: dict[str, Manifests] = {}

    def render(self, values: Values | None = None, *options: str) -> Manifests:
        """As an install would send it, rendered once for the same values; fails with what helm says."""
        asked = json.dumps([values or {}, options])
        if asked not in self._rendered:
            done = self.template(values or {}, *options)
            assert done.returncode == 0, done.stderr
            documents = yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            self._rendered[asked] = Manifests([document for document in documents if document])
        return self._rendered[asked]

    def refusal(self, values: Values) -> str:
        """What helm says to values that it does not take."""
        done = self.template(values)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def lint(self, values: Values) -> str:
        """Empty when helm finds nothing to say but that there is no icon."""
        done = self._run("lint", "--strict", "--quiet", "--values=-", str(self._folder), values=values)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def template(self, values: Values, *options: str) -> subprocess.CompletedProcess[str]:
        """Run to its end."""
        release = ["template", RELEASE, str(self._folder), f"--namespace={NAMESPACE}", "--values=-"]
        return self._run(*release, *options, values=values)

    def _run(self, *arguments: str, values: Values) -> subprocess.CompletedProcess[str]:
        command = [str(self._helm), *arguments]
        return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
