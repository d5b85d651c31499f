import sys
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from membudget_contract.control_api import BUDGETS_PATH
from memory_cgroup import memory_cgroup
from sidecar.fake_engine import FakeEngine, eventually
from sidecar.hand_driven import policy_text
from sidecar.sidecar_process import Started

MIB = 1 << 20
SECONDS = 60.0  # a process starts within seconds, and on an emulated processor within a multiple of them
pytestmark = pytest.mark.cgroup


def test_the_budget_of_a_real_sidecar_follows_the_limit_of_a_real_cgroup(tmp_path: Path) -> None:
    """R-P03, fault 86: half of the limit, raised and lowered live; then half of the pod's, when that is tighter."""
    told: list[int] = []
    policy = policy_text("50%", signal="Unreclaimable", sampling={"intervalSeconds": 1})
    (tmp_path / "policy.yaml").write_text(policy)
    with memory_cgroup(None) as pod, memory_cgroup(200 * MIB, parent=pod) as container:
        engine = FakeEngine(tmp_path, container.run).start()
        engine.hold_managed(20 * MIB)
        started = Started(tmp_path, "--policy", str(tmp_path / "policy.yaml"))

        def says(budget: int, limit: int) -> bool:
            assert started.process.poll() is None, started.log()
            status = started.status()
            expected = {"engine": "Connected", "budgetBytes": budget * MIB, "policyProblem": None}
            return expected.items() <= status.items() and status["limit"]["value"] == limit * MIB

        def holds(budget: int, limit: int) -> None:
            eventually(lambda: says(budget, limit), f"{budget} MiB of {limit} MiB", SECONDS)
            eventually(lambda: budgets(engine)[-1:] == [budget * MIB], "the engine holds it", SECONDS)
            told.append(budget)

        try:
            holds(100, limit=200)
            container.set_limit(300 * MIB)
            holds(150, limit=300)
            container.set_limit(120 * MIB)
            holds(60, limit=120)
            pod.set_limit(100 * MIB)
            holds(50, limit=100)
            usage: dict[str, Any] = started.status()["usage"]
            kills = container.oom_kills()
        finally:
            code, log = started.end(SIGTERM)
            sys.stdout.write(log)  # shown when the test fails
            engine.kill()
        assert (told, kills, code, "Traceback" in log) == ([100, 150, 60, 50], 0, 0, False)
        assert str(container.path) in usage["source"]
        assert 20 * MIB < usage["value"] < 45 * MIB


def budgets(engine: FakeEngine) -> list[int]:
    """The totals that the sidecar pushed, oldest first."""
    return [body["totalBytes"] for body in engine.requests(BUDGETS_PATH)]
