"""Where helm, kubeconform and compose-spec come from: this project's cache, filled by `make cluster-binaries`.

Run as a program it fills the cache, or with `--folder` only says where it is. Without it tests are skipped with the
reason; under REQUIRE_CLUSTER=1 the cache is filled on demand, and whatever is still missing is a failure. How they are
built is build_tools.sh.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program
from cluster.binaries import require, required

BUILD_SCRIPT = Path(__file__).with_name("build_tools.sh")


@dataclass(frozen=True)
class Tools:
    """A folder that holds all of them."""

    folder: Path

    @property
    def helm(self) -> Path:
        """Of the version that the node tests use."""
        return self.folder / "helm"

    @property
    def kubeconform(self) -> Path:
        """Checks manifests against schemas."""
        return self.folder / "kubeconform"

    @property
    def compose_spec(self) -> Path:
        """The compose specification's own reader; it starts nothing."""
        return self.folder / "compose-spec"

    @property
    def operator_definitions(self) -> list[Path]:
        """Of PodMonitor and PrometheusRule, as the Prometheus operator ships them."""
        return sorted(self.folder.glob("monitoring.coreos.com_*.yaml"))


def find_tools() -> Tools:
    """Those to test with; skips or fails without."""
    folder = cache_folder()
    options = [] if required() else ["--check"]
    usable = subprocess.run([BUILD_SCRIPT, *options, folder], check=False).returncode == 0
    require(usable, f"no helm and kubeconform in {folder}: run `make cluster-binaries`")
    return Tools(folder)


def cache_folder() -> Path:
    """Outside the repository, shared by all checkouts of this user."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "membudget" / "chart-tools"


def build() -> int:
    """Fills the cache, with progress on stderr; the build script's exit code."""
    return subprocess.run([BUILD_SCRIPT, cache_folder()], check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["--folder"]:
        sys.stdout.write(f"{cache_folder()}\n")
    else:
        sys.exit(build())
