"""helm beside the API server, as an administrator types it.

Covers: commands on one release, what the release makes, and objects read back. Neighbours: `control_plane` (where),
`charts.tools` (which helm), `charts.rendering` (the same chart without a cluster).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charts.rendering import CHART
from charts.tools import find_tools
from cluster.control_plane import ControlPlane

_SECONDS = 120.0


class Helm:
    """One release in one namespace; everything helm remembers here is in `folder`."""

    def __init__(self, control_plane: ControlPlane, folder: Path, release: str, namespace: str) -> None:
        self._control_plane = control_plane
        self._program = find_tools().helm
        self._home = {
            name: str(folder / name.lower()) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        }
        self._release = release
        self._namespace = namespace

    def put(self, verb: str, values: Mapping[str, Any], *options: str) -> None:
        """`install` or `upgrade` with exactly these values."""
        self.run(verb, str(CHART), "--values=-", *options, stdin=json.dumps(values))

    def run(self, verb: str, *arguments: str, stdin: str = "") -> str:
        """One command on the release; fails with what helm says."""
        command = [str(self._program), f"--kubeconfig={self._control_plane.kubeconfig}"]
        command += [f"--namespace={self._namespace}", verb, self._release, *arguments]
        done = subprocess.run(
            self._control_plane.inside(["env", *(f"{name}={path}" for name, path in self._home.items()), *command]),
            input=stdin, capture_output=True, text=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"helm {verb}: {done.stdout}{done.stderr}"
        return done.stdout
