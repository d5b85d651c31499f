"""Where a node's binaries come from: this project's cache, filled by `make node-binaries`.

Run as a program it fills the cache. Tests are skipped with the reason when there are none; under REQUIRE_NODE=1 the
cache is filled on demand, and whatever is still missing is a failure. The control plane's three come from
`cluster.binaries`; how these are built is build_binaries.sh; what is started from them is node.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program
from cluster import binaries as control_plane

BUILD_SCRIPT = Path(__file__).with_name("build_binaries.sh")
PROGRAMS = {
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "iptables": "iptables",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}


@dataclass(frozen=True)
class NodeBinaries:
    """Two folders: the node's own, and the control plane's."""

    folder: Path
    control_plane: control_plane.Binaries

    def path(self, name: str) -> str:
        """One of the node's."""
        return str(self.folder / name)


def required() -> bool:
    """Whether this machine must be able to run a node."""
    return os.environ.get("REQUIRE_NODE") == "1"


def require(condition: bool, need: str) -> None:
    """Skips the test with the reason when the machine lacks what it needs; fails it under REQUIRE_NODE=1."""
    if condition:
        return
    if required():
        pytest.fail(f"REQUIRE_NODE=1, but {need}")
    pytest.skip(need)


def find_binaries() -> NodeBinaries:
    """Those to test with; skips or fails without."""
    folder = cache_folder()
    for script, cache in ((BUILD_SCRIPT, folder), (control_plane.BUILD_SCRIPT, control_plane.cache_folder())):
        built = subprocess.run([script, "--check", cache], check=False).returncode == 0
        require(built, f"no binaries in {cache}: run `make node-binaries`")
    return NodeBinaries(folder, control_plane.Binaries(control_plane.cache_folder()))


def cache_folder() -> Path:
    """Beside the control plane's, of the same version."""
    plane = control_plane.cache_folder()
    return plane.with_name(plane.name.replace("control-plane", "node"))


def build() -> int:
    """Fills both caches, with progress on stderr; the exit code of the build script that failed, or 0."""
    return control_plane.build() or subprocess.run([BUILD_SCRIPT, cache_folder()], check=False).returncode


if __name__ == "__main__":
    sys.exit(build())
