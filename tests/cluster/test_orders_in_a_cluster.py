"""Orders between a real controller, a real API server and a real pod: who wins, who is refused, what survives what."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator

import pytest
from nacl.signing import SigningKey

from cluster.controller_process import ControllerProcess
from cluster.installation import Installation, RetrievalPod, until
from membudget_contract.orders import KEY_HEADER, ORDER_DOMAIN, ORDER_PATH, SIGNATURE_HEADER
from membudget_contract.quantities import MIB

pytestmark = pytest.mark.cluster

SIDECAR_PORT = 9465
QUIET_SECONDS = 6.0
"""With reports and lists each two seconds; with the usual times a minute."""
MINUTE_SECONDS = 60.0


def test_a_policy_deleted_and_made_again_under_its_name_is_a_new_one(
    installation: Installation, pod: RetrievalPod
) -> None:
    """R-P08: generation 1 of the new uid is taken though generation 2 of the old one was held."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "retrieval", budget={"total": "170Mi"})
    until(lambda: pod.holds(170 * MIB))
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi"})
    until(lambda: pod.holds(180 * MIB))
    installation.control_plane.kubectl("delete", "mempol", "retrieval", "-n", namespace)
    installation.apply_policy(namespace, "retrieval", budget={"total": "190Mi"})
    until(lambda: pod.holds(190 * MIB) and installation.is_programmed(namespace, "retrieval"))
    assert installation.policy_status(namespace, "retrieval")[0] == 1


def test_of_two_policies_on_one_pod_the_higher_precedence_wins_and_the_loser_says_so(
    installation: Installation, pod: RetrievalPod
) -> None:
    """R-P11, fault 100: and when the winner goes, the other takes over."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "broad", budget={"total": "180Mi"})
    until(lambda: pod.holds(180 * MIB))
    installation.apply_policy(namespace, "special", precedence=10, budget={"total": "170Mi"})
    until(lambda: pod.holds(170 * MIB) and installation.is_programmed(namespace, "special"))
    until(lambda: "Conflicted" in _reasons(installation, namespace, "broad"))
    installation.control_plane.kubectl("delete", "mempol", "special", "-n", namespace)
    until(lambda: pod.holds(180 * MIB) and installation.is_programmed(namespace, "broad"))
    assert "Conflicted" not in _reasons(installation, namespace, "broad")


def test_a_budget_that_cannot_hold_is_refused_with_its_reason_and_the_last_good_plan_stays(
    installation: Installation, pod: RetrievalPod
) -> None:
    """R-P08, R-P10: 20Mi lies below what the process needs by itself; the condition says how much that is."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi", "signal": "ResidentSetSize"})
    until(lambda: pod.holds(180 * MIB))
    installation.apply_policy(namespace, "retrieval", budget={"total": "20Mi", "signal": "ResidentSetSize"})
    until(lambda: "Refused" in _reasons(installation, namespace, "retrieval"))
    _, status = installation.policy_status(namespace, "retrieval")
    messages = " ".join(condition.message for condition in status.conditions)
    assert (status.refused_pods, "BudgetBelowFloor" in messages, pod.holds(180 * MIB)) == (1, True, True)


def test_a_budget_over_the_containers_limit_is_refused(installation: Installation, pod: RetrievalPod) -> None:
    """R-P08: an order never loosens past the limit of the engine's cgroup, which is 200Mi here."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "retrieval", budget={"total": "210Mi"})
    until(lambda: "Refused" in _reasons(installation, namespace, "retrieval"))
    assert pod.holds(150 * MIB)


def test_an_order_signed_by_another_key_is_refused(installation: Installation, pod: RetrievalPod) -> None:
    """R-P08: whoever can reach the pod but not the controller's Secret changes nothing."""
    body = json.dumps({"plan": {}}).encode()
    stranger = SigningKey.generate()
    signature = base64.b64encode(stranger.sign(ORDER_DOMAIN + body).signature).decode()
    known = next(path.name for path in pod.keys.iterdir() if not path.name.startswith("."))
    answers = [_post(installation, pod, body, key, signature) for key in ("0123456789abcdef", known)]
    assert ([" 401 " in answer for answer in answers], pod.holds(150 * MIB)) == ([True, True], True)


def test_a_killed_controller_comes_back_and_pushes_nothing_when_nothing_changed(
    installation: Installation, pod: RetrievalPod
) -> None:
    """R-P08, R-P10: it learns from the pods what they hold; the edit that it missed is pushed."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi"})
    # Ready too: a killed controller that had not yet heard a report leaves its successor something to write.
    until(lambda: installation.is_programmed(namespace, "retrieval") and _is_ready(installation, namespace))
    installation.kill_controller()
    mark = installation.control_plane.mark()
    installation.start_controller()
    until(lambda: installation.reports() > 0)
    time.sleep(2.0)  # what it would push after the report, it would push now
    writes = [write for write in installation.control_plane.writes(mark) if write.resource != "secrets"]
    assert (installation.pushes(), writes, installation.is_programmed(namespace, "retrieval")) == (0, [], True)
    installation.kill_controller()
    installation.apply_policy(namespace, "retrieval", budget={"total": "190Mi"})
    installation.start_controller()
    until(lambda: pod.holds(190 * MIB) and installation.is_programmed(namespace, "retrieval"))


def test_a_killed_sidecar_resumes_the_last_plan(installation: Installation, pod: RetrievalPod) -> None:
    """R-P08: from its disk, with the controller gone."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi"})
    until(lambda: pod.holds(180 * MIB))
    installation.kill_controller()
    pod.kill_sidecar()
    pod.start_sidecar()
    until(lambda: pod.holds(180 * MIB))
    installation.start_controller()


@pytest.mark.parametrize("seconds", [5.0, pytest.param(30.0, marks=pytest.mark.soak)])
def test_an_api_server_that_is_gone_changes_nothing_and_what_was_missed_is_applied(
    installation: Installation, pod: RetrievalPod, seconds: float
) -> None:
    """R-P08, fault 1: the pod keeps its plan, the engine its process; an edit right after the return is programmed."""
    namespace, engine = pod.place.namespace, pod.engine.pid
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi"})
    until(lambda: installation.is_programmed(namespace, "retrieval"))
    installation.control_plane.kill_api_server()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert pod.holds(180 * MIB)
        time.sleep(0.5)
    installation.control_plane.start_api_server()
    installation.apply_policy(namespace, "retrieval", budget={"total": "190Mi"})
    until(lambda: pod.holds(190 * MIB) and installation.is_programmed(namespace, "retrieval"))
    assert (pod.engine.pid, pod.engine.poll()) == (engine, None)


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.soak)])
def quiet_seconds(
    request: pytest.FixtureRequest, installation: Installation, start_controller: Callable[..., ControllerProcess]
) -> Iterator[float]:
    """How long nothing may happen under a controller that looks every two seconds, or in the usual times."""
    brisk: bool = request.param
    if not brisk:
        yield MINUTE_SECONDS
        return
    installation.kill_controller()
    installation.controller = start_controller(brisk=True)
    yield QUIET_SECONDS
    installation.kill_controller()
    installation.start_controller()


def test_a_converged_system_writes_and_pushes_nothing(
    installation: Installation, pod: RetrievalPod, quiet_seconds: float
) -> None:
    """R-P10: counted at the API server and at the controller, over several reports and lists."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi"})
    until(lambda: installation.is_programmed(namespace, "retrieval"))
    until(lambda: _is_ready(installation, namespace))
    until(lambda: "UnderBudget" in _events(installation, namespace))  # the last that a transition writes
    mark, pushes, reports = installation.control_plane.mark(), installation.pushes(), installation.reports()
    time.sleep(quiet_seconds)
    writes = installation.control_plane.writes(mark, events=True)
    assert (writes, installation.pushes() - pushes, installation.reports() > reports) == ([], 0, True)


def test_transitions_are_events_on_the_policy(installation: Installation, pod: RetrievalPod) -> None:
    """R-P10: `kubectl describe mempol` tells when it was programmed."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "told", budget={"total": "180Mi"})
    until(lambda: installation.is_programmed(namespace, "told"))
    until(
        lambda: (
            "Programmed" in installation.control_plane.kubectl("events", "-n", namespace, "--for=mempol/told").stdout
        )
    )


def test_the_controller_ends_on_sigterm_in_time(installation: Installation, pod: RetrievalPod) -> None:
    """R-P08: exit code 0 within 10 s, and every pod keeps its plan."""
    assert installation.controller is not None
    assert (installation.controller.stop(), pod.holds(150 * MIB)) == (0, True)
    installation.start_controller()


def test_kubectl_get_says_it_at_a_glance(installation: Installation, pod: RetrievalPod) -> None:
    """R-P01: and so does `membudget status -n`, with exit code 0 once programmed."""
    namespace = pod.place.namespace
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi"})
    until(lambda: installation.is_programmed(namespace, "retrieval"))
    glance = installation.control_plane.kubectl("get", "mempol", "-n", namespace).stdout
    assert glance.split()[:8] == ["NAME", "MODE", "PROFILE", "TOTAL", "MATCHED", "PROGRAMMED", "READY", "AGE"]
    assert ["retrieval", "Enforce", "Production", "180Mi", "1", "1"] == glance.splitlines()[1].split()[:6]
    code, table = installation.membudget("status", "-n", namespace)
    assert (code, "retrieval" in table, "180Mi" in table) == (0, True, True)


def _events(installation: Installation, namespace: str) -> str:
    return installation.control_plane.kubectl("events", "-n", namespace, "--for=mempol/retrieval").stdout


def _reasons(installation: Installation, namespace: str, name: str) -> list[str]:
    _, status = installation.policy_status(namespace, name)
    return [condition.reason for condition in status.conditions]


def _is_ready(installation: Installation, namespace: str) -> bool:
    _, status = installation.policy_status(namespace, "retrieval")
    return any((condition.type, condition.status) == ("Ready", "True") for condition in status.conditions)


def _post(installation: Installation, pod: RetrievalPod, body: bytes, key: str, signature: str) -> str:
    """The first line of the sidecar's answer to an order."""
    head = (
        f"POST {ORDER_PATH} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        f"{KEY_HEADER}: {key}\r\n{SIGNATURE_HEADER}: {signature}\r\n\r\n"
    )
    with installation.control_plane.network.connect(pod.place.address, SIDECAR_PORT, 5.0) as connection:
        connection.sendall(head.encode() + body)
        with connection.makefile("rb") as file:
            return file.readline().decode()
