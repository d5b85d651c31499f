"""The line from kubectl to the kernel's figure and to what is served: a policy is applied, and an engine follows it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.installation import Installation, RetrievalPod, until
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ActionStatus

pytestmark = pytest.mark.cluster


def test_kubectl_apply_moves_the_bytes_of_a_running_engine(
    installation: Installation, pod: RetrievalPod, publish: Callable[[str], None]
) -> None:
    """R-P01, R-P08, R-P10, R-P13: apply, edit, delete; each time the kernel's figure follows, nothing restarts."""
    namespace, engine = pod.place.namespace, pod.engine.pid
    installation.apply_policy(namespace, "retrieval", budget={"total": "150Mi", "signal": "ResidentSetSize"})
    until(lambda: installation.is_programmed(namespace, "retrieval"))
    assert pod.ask(0, 15_000) == (15_000, 0)
    before = pod.resident_bytes()
    installation.apply_policy(namespace, "retrieval", budget={"total": "125Mi", "signal": "ResidentSetSize"})
    until(lambda: installation.is_programmed(namespace, "retrieval") and pod.holds(125 * MIB))
    until(lambda: pod.resident_bytes() <= 100 * MIB)
    publish(f"kubectl apply 150Mi -> 125Mi: resident {before / MIB:.1f} -> {pod.resident_bytes() / MIB:.1f} MiB")
    assert before > 105 * MIB
    _, status = installation.policy_status(namespace, "retrieval")
    assert (status.matched_pods, status.programmed_pods, status.refused_pods) == (1, 1, 0)
    installation.control_plane.kubectl("delete", "mempol", "retrieval", "-n", namespace)
    until(lambda: pod.holds(150 * MIB))
    assert (pod.engine.pid, pod.engine.poll(), pod.cgroup.oom_kills()) == (engine, None, 0)


def test_a_new_value_in_the_policy_has_a_running_engine_serve_what_was_built_meanwhile(
    installation: Installation, pod: RetrievalPod, cluster_corpus: Path, tmp_path: Path
) -> None:
    """R-P09: one reload for one value, also by the next life of the sidecar; the engine goes on all the while."""
    namespace, engine = pod.place.namespace, pod.engine.pid
    (tmp_path / "added.py").write_text("def added() -> None:\n    '''Built while the engine runs.'''\n")
    build = ["-m", "membudget_engine", "build", f"--data={cluster_corpus}", f"--source=added={tmp_path}"]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    try:
        installation.apply_policy(namespace, "retrieval", budget={"total": "160Mi"}, reload={"index": "build-2"})
        until(lambda: [action.status for action in pod.reloads()] == [ActionStatus.DONE])
        assert "added" in pod.collections()
        pod.kill_sidecar()
        pod.start_sidecar()
        installation.apply_policy(namespace, "retrieval", budget={"total": "155Mi"}, reload={"index": "build-2"})
        until(lambda: installation.is_programmed(namespace, "retrieval") and pod.holds(155 * MIB))
        assert (pod.reloads(), pod.engine.pid, pod.engine.poll()) == ([], engine, None)
    finally:
        shutil.rmtree(cluster_corpus / "added")
