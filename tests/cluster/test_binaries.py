"""Where the binaries are looked for, and how a test ends without them."""

import subprocess
from pathlib import Path

import pytest

from cluster import binaries


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, nothing required and no assets named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    for name in ("KUBEBUILDER_ASSETS", "REQUIRE_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_named_assets_are_used_before_any_cache(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBEBUILDER_ASSETS is what others set; nothing is built then, even when a cluster is required."""
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (environment / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(environment))
    monkeypatch.setenv("REQUIRE_CLUSTER", "1")
    assert binaries.Binaries(environment) == binaries.find_binaries()


def test_assets_that_lack_a_binary_name_it(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says which one."""
    (environment / "etcd").touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(environment))
    with pytest.raises(pytest.skip.Exception, match="lacks kube-apiserver, kubectl"):
        binaries.find_binaries()


def test_without_binaries_the_reason_names_the_command() -> None:
    """A person who sees the skip knows what to type."""
    with pytest.raises(pytest.skip.Exception, match="make cluster-binaries"):
        binaries.find_binaries()


def test_a_required_control_plane_that_cannot_be_built_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is skipped; the build has said before what it lacks."""
    monkeypatch.setenv("REQUIRE_CLUSTER", "1")
    monkeypatch.setattr(binaries, "BUILD_SCRIPT", "/bin/false")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_CLUSTER=1, but"):
        binaries.find_binaries()


def test_the_build_says_what_is_missing_and_what_installs_it(environment: Path) -> None:
    """A machine without go, made of the folders that hold everything else."""
    tools = environment / "tools"
    tools.mkdir()
    for name in ("bash", "awk", "cat", "cut", "dirname", "env", "flock", "mkdir", "sha256sum"):
        found = subprocess.run(["/bin/sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True)
        (tools / name).symlink_to(found.stdout.strip())
    command = [binaries.BUILD_SCRIPT, environment / "cache"]
    built = subprocess.run(command, env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert built.returncode == 1
    assert "go >= 1.23 is missing. On Debian" in built.stderr
