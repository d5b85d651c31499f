"""Who the API server believes, and which API server is believed: tokens, certificates, and one that lags behind.

Covers: faults 6, 11 and 12, with real API servers, a real controller with short times (`brisk_controller`) and fake
sidecars.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.api_proxy import ApiProxy
from cluster.api_requests import ApiRefused
from cluster.brisk_controller import BRISK
from cluster.control_plane import ControlPlane
from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from cluster.etcd_process import LAGGING_PORT
from cluster.fleet import Fleet, never
from cluster.installation import Installation, until
from cluster.test_api_server_faults import RETURN_SECONDS, proxy, with_pods
from cluster.test_silent_connections import behind, is_alive
from membudget_contract.policy import API_VERSION

__all__ = ["proxy"]

pytestmark = pytest.mark.cluster

Start = Callable[..., ControllerProcess]
ACCOUNT = f"/api/v1/namespaces/{OWN_NAMESPACE}/serviceaccounts/membudget-controller"
TOKEN_CACHE_SECONDS = 10.0
"""An API server believes a token for so long after it last looked whose it is."""
DEFINITION = f"memorypolicies.{API_VERSION.partition('/')[0]}"
LAG_SECONDS = 10.0
"""Longer than it takes until requests to the store behind it have failed, twice each."""


def test_an_api_server_that_lags_behind_takes_no_pod_back(
    fleet: Fleet, start_controller: Start, proxy: ApiProxy
) -> None:
    """R-P08, fault 6: it still knows the first generation; the controller is led to it, and on again.

    First for policies alone, as a load balancer may: everything else that it asks for is answered as it is now.
    """
    with_pods(fleet, 3)
    start_controller(kubeconfig=proxy.kubeconfig, brisk=True)
    fleet.wait_until_converged()
    with fleet.control_plane.second_api_server() as port:
        until(lambda: generations_at(fleet, proxy, port) == [1])
        with cut_off(fleet.control_plane, LAGGING_PORT):
            fleet.apply("retrieval", budget={"total": "190Mi"})
            fleet.wait_until_converged()
            assert [policy["metadata"]["generation"] for policy in fleet.policies()] == [2]
            lists = full_lists(proxy)
            until(
                lambda: full_lists(proxy) >= lists + 2
            )  # one of them began after the edit: the other server is behind it
            held, orders = fleet.held(), fleet.orders()
            proxy.redirect(port, only=f"{API_VERSION}/memorypolicies")
            never(lambda: (fleet.held(), fleet.orders()) != (held, orders), LAG_SECONDS / 2)
            proxy.redirect(port)
            never(lambda: (fleet.held(), fleet.orders()) != (held, orders), LAG_SECONDS)
            assert generations_at(fleet, proxy, port) == [1]
            proxy.redirect(6443)
    fleet.apply("retrieval", budget={"total": "200Mi"})
    fleet.wait_until_converged(RETURN_SECONDS)
    fleet.check_history()


def test_a_token_that_ends_is_replaced_by_the_next_one_in_its_file(
    fleet: Fleet, start_controller: Start, service_account: ServiceAccount
) -> None:
    """R-P08, fault 11: what was edited while nothing was believed is applied; an empty file ends nothing."""
    with_pods(fleet, 2)
    controller = start_controller(brisk=True, service_account=service_account.folder)
    fleet.wait_until_converged()
    service_account.renew()
    until(lambda: " 401 " in controller.log.read_text(errors="replace"), TOKEN_CACHE_SECONDS + 10.0)
    fleet.apply("retrieval", budget={"total": "190Mi"})
    service_account.write(service_account.token())
    fleet.wait_until_converged(RETURN_SECONDS)
    service_account.write("")
    fleet.apply("retrieval", budget={"total": "200Mi"})
    fleet.wait_until_converged(RETURN_SECONDS)
    assert controller.process.poll() is None


def test_another_certificate_is_refused_in_clear_words_until_its_authority_is_known(
    fleet: Fleet, start_controller: Start, service_account: ServiceAccount
) -> None:
    """R-P08, fault 12: the kubelet brings the new bundle later; lists go on at once, and the probe has it restarted.

    kopf reads the bundle when it logs in, and never again.
    """
    with_pods(fleet, 2)
    controller = start_controller(brisk=True, service_account=service_account.folder)
    fleet.wait_until_converged()
    held, orders = fleet.held(), fleet.orders()
    fleet.control_plane.replace_certificate()
    until(lambda: "certificate" in controller.log.read_text(errors="replace").lower())
    fleet.apply("retrieval", budget={"total": "190Mi"})
    assert (fleet.held(), fleet.orders()) == (held, orders)
    service_account.write_authority()
    fleet.wait_until_converged(RETURN_SECONDS)
    until(lambda: not is_alive(controller), BRISK.watch_behind_seconds + RETURN_SECONDS)
    controller.kill()
    again = start_controller(brisk=True, service_account=service_account.folder)
    fleet.apply("retrieval", budget={"total": "200Mi"})
    fleet.wait_until_converged(RETURN_SECONDS)
    until(lambda: behind(again) == 0.0)
    assert is_alive(again)


class ServiceAccount:
    """What a kubelet mounts for the controller's account."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self._control_plane = control_plane
        self.folder = folder
        folder.mkdir()
        (folder / "namespace").write_text(OWN_NAMESPACE)
        self.write_authority()
        self.write(self.token())

    def token(self) -> str:
        """A new one from the API server."""
        asked = {"spec": {"expirationSeconds": 600}}
        return self._control_plane.api.send_json("POST", f"{ACCOUNT}/token", asked)["status"]["token"]

    def renew(self) -> None:
        """Another account under the same name: no token of the one before is believed any more."""
        self._control_plane.api.send("DELETE", ACCOUNT)
        path, name = ACCOUNT.rsplit("/", 1)
        self._control_plane.api.send("POST", path, {"metadata": {"name": name}})

    def write(self, token: str) -> None:
        """The token's file, whole at any time."""
        self._replace("token", token)

    def write_authority(self) -> None:
        """The one that signed the API server's certificate of now."""
        self._replace("ca.crt", self._control_plane.certificate.read_text())

    def _replace(self, name: str, content: str) -> None:
        aside = self.folder / f".{name}"
        aside.write_text(content)
        aside.replace(self.folder / name)


@pytest.fixture
def service_account(installed: Installation, tmp_path: Path) -> ServiceAccount:
    """Of the controller."""
    return ServiceAccount(installed.control_plane, tmp_path / "serviceaccount")


@contextmanager
def cut_off(control_plane: ControlPlane, port: int) -> Generator[None]:
    """Packets to that port and from it are dropped."""
    sides = [["INPUT", "-p", "tcp", side, str(port), "-j", "DROP"] for side in ("--dport", "--sport")]
    for side in sides:
        subprocess.run(control_plane.inside(["iptables", "-I", *side]), check=True)
    try:
        yield
    finally:
        for side in sides:
            subprocess.run(control_plane.inside(["iptables", "-D", *side]), check=True)


def full_lists(proxy: ApiProxy) -> int:
    """How many the controller has made so far; each ends with a look at the definition."""
    return sum(path.endswith(f"/customresourcedefinitions/{DEFINITION}") for _, _, path in proxy.requests)


def generations_at(fleet: Fleet, proxy: ApiProxy, port: int) -> list[int]:
    """Of the policies, as one API server remembers them without asking its store; none while it still begins."""
    path = f"/apis/{API_VERSION}/namespaces/{fleet.namespace}/memorypolicies?resourceVersion=0"
    try:
        listed = proxy.control_plane.api_at(port).send_json("GET", path)
    except ApiRefused:
        return []
    return [policy["metadata"]["generation"] for policy in listed["items"]]


assert 2 * BRISK.request_seconds + BRISK.watch_silence_seconds < LAG_SECONDS
