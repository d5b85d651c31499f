"""How a test ends without helm: loudly, or as a failure where a cluster is required."""

from pathlib import Path

import pytest

from charts import tools


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And nothing required."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("REQUIRE_CLUSTER", raising=False)


def test_without_helm_the_reason_names_the_command() -> None:
    """A person who sees the skip knows what to type."""
    with pytest.raises(pytest.skip.Exception, match="make cluster-binaries"):
        tools.find_tools()


def test_where_a_cluster_is_required_a_missing_helm_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is skipped; the build has said before what it lacks."""
    monkeypatch.setenv("REQUIRE_CLUSTER", "1")
    monkeypatch.setattr(tools, "BUILD_SCRIPT", "/bin/false")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_CLUSTER=1, but no helm"):
        tools.find_tools()
