"""The line from kubectl to the kernel's figure: a policy is applied, and the bytes of a running engine fall."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.installation import Installation, RetrievalPod, until
from membudget_contract.quantities import MIB

pytestmark = pytest.mark.cluster


def test_kubectl_apply_moves_the_bytes_of_a_running_engine(
    installation: Installation, pod: RetrievalPod, publish: Callable[[str], None]
) -> None:
    """R-P01, R-P08, R-P10, R-P13: apply, edit, delete; each time the kernel's figure follows, nothing restarts."""
    namespace, engine = pod.place.namespace, pod.engine.pid
    installation.apply_policy(namespace, "retrieval", budget={"total": "150Mi", "signal": "ResidentSetSize"})
    until(lambda: installation.is_programmed(namespace, "retrieval"))
    assert pod.ask(0, 6000) == (6000, 0)
    before = pod.resident_bytes()
    installation.apply_policy(namespace, "retrieval", budget={"total": "125Mi", "signal": "ResidentSetSize"})
    until(lambda: installation.is_programmed(namespace, "retrieval") and pod.holds(125 * MIB))
    until(lambda: pod.resident_bytes() <= 100 * MIB)
    publish(f"kubectl apply 150Mi -> 125Mi: resident {before / MIB:.1f} -> {pod.resident_bytes() / MIB:.1f} MiB")
    assert before > 112 * MIB
    _, status = installation.policy_status(namespace, "retrieval")
    assert (status.matched_pods, status.programmed_pods, status.refused_pods) == (1, 1, 0)
    installation.control_plane.kubectl("delete", "mempol", "retrieval", "-n", namespace)
    until(lambda: pod.holds(150 * MIB))
    assert (pod.engine.pid, pod.engine.poll(), pod.cgroup.oom_kills()) == (engine, None, 0)
