"""The end of an installation on a real kubelet: what stays of it. Runs last of all here, by its name."""

from __future__ import annotations

import pytest

from node.installed import NAMESPACE, RELEASE, Installed

pytestmark = pytest.mark.node


def test_upgrade_rollback_and_uninstall_keep_policies_and_keys(installed: Installed) -> None:
    """R-T05: what people wrote and what pods verify orders with outlives every helm command."""
    before = _kept(installed)
    installed.helm("upgrade", "example.replicas=0")
    assert before == _kept(installed)
    installed.node.helm("rollback", RELEASE, "1", "--namespace", NAMESPACE)
    assert before == _kept(installed)
    installed.node.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
    assert before == _kept(installed)


def _kept(installed: Installed) -> tuple[set[str], dict[str, str]]:
    """The uids of all policies, and the controller's key pair."""
    policies = installed.node.get("mempol", "-n", NAMESPACE)["items"]
    keys = installed.node.get("secret", "membudget-controller-keys", "-n", NAMESPACE)["data"]
    return {policy["metadata"]["uid"] for policy in policies}, keys
