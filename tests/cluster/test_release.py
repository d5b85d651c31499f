"""The chart as a release on a real API server: what helm's commands leave, and that the controller lives through them.

A control plane of its own: the definition belongs to the release here, and to kubectl in the other tests.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.control_plane import ControlPlane
from cluster.controller_process import OWN_NAMESPACE, ControllerProcess
from cluster.helm_client import Helm
from cluster.installation import until
from membudget_controller.keys import EPOCH_FIELD, PRIVATE_FIELD

pytestmark = pytest.mark.cluster

KEYS = "membudget-controller-keys"
EXAMPLE = {"example": {"enabled": True}}


@dataclass(frozen=True)
class Kept:
    """What must outlive every helm command."""

    policies: dict[str, tuple[str, Any]]
    """Name -> uid and spec."""
    key: str
    definition: str
    """Its uid."""


class Released:
    """One release, and the controller with the rights that it gives."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self.control_plane = control_plane
        self.helm = Helm(control_plane, folder / "helm", "membudget", OWN_NAMESPACE)
        self._log = folder / "controller.log"

    def kept(self) -> Kept:
        """Now."""
        items = self.get("mempol", "--all-namespaces")["items"]
        return Kept(
            {item["metadata"]["name"]: (item["metadata"]["uid"], item["spec"]) for item in items},
            self.secret()[PRIVATE_FIELD],
            self.get("crd", "memorypolicies.membudget.dev")["metadata"]["uid"],
        )

    def secret(self) -> dict[str, str]:
        """What the controller keeps in it, as base64."""
        return self.get("secret", KEYS, "-n", OWN_NAMESPACE).get("data", {})

    def epoch(self) -> int:
        """Of the controller that began last."""
        return int(base64.b64decode(self.secret()[EPOCH_FIELD]))

    def history(self) -> list[str]:
        """All that helm remembers of each revision."""
        secrets = self.get("secrets", "-n", OWN_NAMESPACE, "--field-selector=type=helm.sh/release.v1")["items"]
        twice = [base64.b64decode(base64.b64decode(secret["data"]["release"])) for secret in secrets]
        return [gzip.decompress(each).decode() for each in twice]

    def get(self, *arguments: str) -> Any:
        """`kubectl get -o json`, decoded."""
        return json.loads(self.control_plane.kubectl("get", *arguments, "-o", "json").stdout)

    def run_controller(self) -> None:
        """From start to ready to end: it takes the next epoch."""
        controller = ControllerProcess(self.control_plane, self._log)
        until(controller.is_ready)
        assert 0 == controller.stop()


@pytest.fixture
def released(tmp_path: Path) -> Iterator[Released]:
    """Nothing installed yet."""
    with ControlPlane(tmp_path) as plane:
        plane.create_namespace(OWN_NAMESPACE)
        plane.create_namespace("search")
        yield Released(plane, tmp_path)


def test_policies_and_keys_outlive_every_command_of_helm(released: Released) -> None:
    """R-T05, R-P08: install, upgrade, rollback, uninstall, install again; the epoch never goes back."""
    released.helm.put("install", EXAMPLE)
    assert {} == released.secret()
    policy = {
        "apiVersion": "membudget.dev/v1alpha1",
        "kind": "MemoryPolicy",
        "metadata": {"name": "mine", "namespace": "search"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "budget": {"total": "150Mi"}},
    }
    released.control_plane.apply(json.dumps(policy))
    released.run_controller()
    kept, epochs = released.kept(), [released.epoch()]
    assert {"mine", "retriever"} == set(kept.policies)

    def check() -> None:
        """The same as before, and the controller goes on from where it was."""
        assert kept == released.kept()
        epochs.append(released.epoch())
        released.run_controller()
        assert kept == released.kept()
        epochs.append(released.epoch())

    released.helm.put("upgrade", {"example": {"enabled": True, "replicas": 0}})
    check()
    released.helm.put("upgrade", {"controller": {"podLabels": {"a": "b"}}})  # without the example
    check()
    released.helm.run("rollback", "1")
    check()
    released.helm.run("rollback", "2")
    check()
    released.helm.run("uninstall")
    assert kept == released.kept()
    assert [] == released.get("deployments", "--all-namespaces")["items"]
    released.helm.put("install", EXAMPLE)
    check()
    starts, before_starts = epochs[::2], epochs[1::2]
    assert (sorted(set(starts)), starts[:-1]) == (starts, before_starts)


def test_no_release_remembers_the_private_key(released: Released) -> None:
    """R-P08: whoever may read helm's own Secrets reads no key, and no rollback brings an old one back."""
    released.helm.put("install", {})
    released.run_controller()
    released.helm.put("upgrade", EXAMPLE)
    first = released.secret()[PRIVATE_FIELD]
    rotated = base64.b64encode(b"another").decode()
    released.control_plane.kubectl(
        "patch",
        "secret",
        KEYS,
        "-n",
        OWN_NAMESPACE,
        "--type=merge",
        "-p",
        json.dumps({"data": {PRIVATE_FIELD: rotated}}),
    )
    released.helm.run("rollback", "2")
    assert (rotated, 3) == (released.secret()[PRIVATE_FIELD], len(released.history()))
    assert [] == [revision for revision in released.history() if first in revision or rotated in revision]


def test_a_release_that_gives_up_its_definition_takes_the_policies_along(released: Released) -> None:
    """R-T05: crds.keep is what keeps them, so without it they go; the Secret stays even then."""
    released.helm.put("install", {"crds": {"keep": False}})
    released.run_controller()
    key = released.secret()[PRIVATE_FIELD]
    released.helm.run("uninstall")
    asked = ("get", "crd", "memorypolicies.membudget.dev")
    # Helm asks for its deletion and does not wait: the API server drops the policies first.
    until(lambda: released.control_plane.kubectl(*asked, check=False).returncode == 1)
    assert key == released.secret()[PRIVATE_FIELD]
