"""Where etcd, kube-apiserver and kubectl come from: KUBEBUILDER_ASSETS, else this project's cache, else nowhere.

Run as a program it fills the cache (`make cluster-binaries`), and that of helm and what else checks the chart
(charts/tools.py). Tests are skipped with the reason when there are no binaries; under REQUIRE_CLUSTER=1 the cache is
filled on demand, and whatever is still missing is a failure. How they are built is build_binaries.sh; what is started
from them is control_plane.py.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

BUILD_SCRIPT = Path(__file__).with_name("build_binaries.sh")
CHART_TOOLS = Path(__file__).parents[1] / "charts" / "tools.py"
MODULE_FILE = Path(__file__).with_name("control_plane_module") / "go.mod"


@dataclass(frozen=True)
class Binaries:
    """A folder that holds all three."""

    folder: Path

    @property
    def etcd(self) -> Path:
        """The store."""
        return self.folder / "etcd"

    @property
    def kube_apiserver(self) -> Path:
        """The API server."""
        return self.folder / "kube-apiserver"

    @property
    def kubectl(self) -> Path:
        """The client a person uses, of the API server's version."""
        return self.folder / "kubectl"

    def missing(self) -> list[str]:
        """The names of those that are not there or cannot be run."""
        return [path.name for path in (self.etcd, self.kube_apiserver, self.kubectl) if not os.access(path, os.X_OK)]


def required() -> bool:
    """Whether this machine must be able to run a control plane."""
    return os.environ.get("REQUIRE_CLUSTER") == "1"


def require(condition: bool, need: str) -> None:
    """Skips the test with the reason when the machine lacks what it needs; fails it under REQUIRE_CLUSTER=1."""
    if condition:
        return
    if required():
        pytest.fail(f"REQUIRE_CLUSTER=1, but {need}")
    pytest.skip(need)


def find_binaries() -> Binaries:
    """Those to test with; skips or fails without."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        binaries = Binaries(Path(assets))
        require(not binaries.missing(), f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(binaries.missing())}")
        return binaries
    folder = cache_folder()
    options = [] if required() else ["--check"]
    usable = subprocess.run([BUILD_SCRIPT, *options, folder], check=False).returncode == 0
    require(usable, f"no control plane in {folder}: run `make cluster-binaries`, or set KUBEBUILDER_ASSETS")
    return Binaries(folder)


def cache_folder() -> Path:
    """Outside the repository, one for each version of Kubernetes, shared by all checkouts of this user."""
    pinned = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", MODULE_FILE.read_text(), re.MULTILINE)
    assert pinned is not None, f"{MODULE_FILE} pins no k8s.io/kubernetes"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "membudget" / f"control-plane-{pinned[1]}"


def build() -> int:
    """Fills both caches, with progress on stderr; the exit code of what failed, or 0."""
    commands = ([BUILD_SCRIPT, cache_folder()], [sys.executable, CHART_TOOLS])
    return next((code for command in commands if (code := subprocess.run(command, check=False).returncode)), 0)


if __name__ == "__main__":
    sys.exit(build())
