"""The key pair changes under a running system: a real API server, a real controller, a real sidecar and its engine."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import pytest
from nacl.signing import SigningKey

from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from cluster.installation import Installation, RetrievalPod, until
from membudget_contract.compile import compile_policy
from membudget_contract.orders import PodIdentity
from membudget_contract.plan import plan_hash
from membudget_contract.quantities import MIB
from membudget_controller.keys import Authority, OrderKey
from membudget_controller.orders import OrderWriter, SignedRequest
from membudget_controller.settings import KEY_CONFIG_MAP, KEY_SECRET, SIDECAR_PORT
from membudget_controller.targets import Desired

pytestmark = pytest.mark.cluster

FAR_EPOCH = 2**40
"""An order of that epoch is newer than any: only its signature can be what is wrong with it."""


@pytest.fixture
def brisk(installation: Installation, start_controller: Callable[..., ControllerProcess]) -> Iterator[None]:
    """A controller that looks into its Secret every two seconds, in the place of the module's."""
    installation.kill_controller()
    controller = start_controller(brisk=True)
    yield
    controller.kill()
    installation.start_controller()


@pytest.mark.usefixtures("brisk")
def test_a_rotated_key_loses_no_plan_and_the_old_one_is_refused_after_its_time(
    installation: Installation, pod: RetrievalPod
) -> None:
    """R-P08: every edit on the way is programmed; then neither an order nor a request under the old key counts."""
    namespace = pod.place.namespace
    before = signing_key(installation)
    installation.apply_policy(namespace, "retrieval", budget={"total": "180Mi"})
    until(lambda: pod.holds(180 * MIB) and published(installation, namespace) == [before.key_id])
    assert [200, 409] == [answered(installation, pod, one) for one in (report(pod, before), foreign(pod, before))]
    installation.control_plane.kubectl(
        *("patch", "secret", KEY_SECRET, "-n", OWN_NAMESPACE, "--type=merge"),
        *("-p", '{"stringData": {"rotate": "2026-11-21"}}'),
    )
    totals = [170 + step for step in range(20)]
    for total in totals:
        installation.apply_policy(namespace, "retrieval", budget={"total": f"{total}Mi"})
        until(lambda wanted=total: pod.holds(wanted * MIB))
        if published(installation, namespace) == [signing_key(installation).key_id] != [before.key_id]:
            break
    after = signing_key(installation)
    assert [after.key_id] == published(installation, namespace)
    until(lambda: [path.name for path in pod.keys.iterdir()] == [after.key_id])
    assert [200, 401, 401] == [
        answered(installation, pod, one) for one in (report(pod, after), report(pod, before), order(pod, before))
    ]
    installation.apply_policy(namespace, "retrieval", budget={"total": "195Mi"})
    until(lambda: pod.holds(195 * MIB) and installation.is_programmed(namespace, "retrieval"))


def signing_key(installation: Installation) -> OrderKey:
    """The private key in the controller's Secret, as somebody may have stolen it."""
    secret = installation.control_plane.api.send_json("GET", f"/api/v1/namespaces/{OWN_NAMESPACE}/secrets/{KEY_SECRET}")
    return OrderKey(SigningKey(base64.b64decode(base64.b64decode(secret["data"]["privateKey"]))))


def published(installation: Installation, namespace: str) -> list[str]:
    """Ids of the public keys that pods of a namespace are given."""
    path = f"/api/v1/namespaces/{namespace}/configmaps/{KEY_CONFIG_MAP}"
    return sorted(installation.control_plane.api.send_json("GET", path)["data"])


def order(pod: RetrievalPod, key: OrderKey, name: str | None = None) -> SignedRequest:
    """One that only its signature may keep from being taken."""
    plan = compile_policy(None)
    identity = PodIdentity(namespace=pod.place.namespace, name=name or pod.place.name, uid=pod.uid)
    writer = OrderWriter(Authority(key, FAR_EPOCH))
    return writer.order_request(writer.number(identity, Desired(None, plan, plan_hash(plan))))


def foreign(pod: RetrievalPod, key: OrderKey) -> SignedRequest:
    """One for another pod: what is refused for that was believed."""
    return order(pod, key, "another")


def report(pod: RetrievalPod, key: OrderKey) -> SignedRequest:
    """A request that changes nothing."""
    identity = PodIdentity(namespace=pod.place.namespace, name=pod.place.name, uid=pod.uid)
    return OrderWriter(Authority(key, FAR_EPOCH)).report_request(identity)


def answered(installation: Installation, pod: RetrievalPod, request: SignedRequest) -> int:
    """The status of the sidecar's answer."""
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    length = f"Content-Length: {len(request.body)}"
    head = "\r\n".join([f"POST {request.path} HTTP/1.1", "Host: pod", "Connection: close", length, *lines, "", ""])
    with installation.control_plane.network.connect(pod.place.address, SIDECAR_PORT, 5.0) as connection:
        connection.sendall(head.encode() + request.body)
        with connection.makefile("rb") as file:
            return int(file.readline().split()[1])
