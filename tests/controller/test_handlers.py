"""kopf only brings events; nothing of it touches a user's object (R-P08, R-P13)."""

from __future__ import annotations

import logging
from typing import Any, cast

import kopf
import pytest

from membudget_controller import handlers
from membudget_controller.observed import Observed
from membudget_controller.settings import ControllerSettings

SPEC = {"selector": {"matchLabels": {"app": "retriever"}}}


def policy_event(kind: str | None, version: int = 5) -> kopf.RawEvent:
    """As kopf hands it over."""
    metadata = {
        "name": "retrieval",
        "namespace": "search",
        "uid": "u",
        "resourceVersion": str(version),
        "generation": 1,
        "creationTimestamp": "2026-11-20T10:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    }
    body = {"apiVersion": "membudget.dev/v1alpha1", "kind": "MemoryPolicy", "metadata": metadata, "spec": SPEC}
    return cast("kopf.RawEvent", {"type": kind, "object": body})


def pod_event(kind: str | None, version: int = 5, managed: str = "true") -> kopf.RawEvent:
    """With the fields that a kubelet writes."""
    labels = {"membudget.dev/managed": managed}
    metadata = {"name": "r-0", "namespace": "search", "uid": "p", "resourceVersion": str(version), "labels": labels}
    status = {
        "phase": "Running",
        "podIP": "10.244.0.9",
        "podIPs": [{"ip": "10.244.0.9"}, {"ip": "fd00::9"}],
        "containerStatuses": [{"name": "engine", "restartCount": 2}],
        "initContainerStatuses": [{"name": "membudget", "restartCount": 1}],
    }
    return cast("kopf.RawEvent", {"type": kind, "object": {"metadata": metadata, "spec": {}, "status": status}})


@pytest.fixture
def observed() -> Observed:
    """Both kinds listed, empty."""
    made = Observed(lambda: 0.0)
    made.replace_policies([], 1)
    made.replace_pods([], 1)
    return made


def test_an_event_shows_the_few_fields_that_matter(observed: Observed) -> None:
    """R-P08: addresses and the restarts of all containers."""
    handlers.take_pod_event(observed, pod_event("ADDED"))
    (pod,) = observed.view().pods
    assert ("10.244.0.9", ("10.244.0.9", "fd00::9"), 3, "Running", False) == (
        pod.ip,
        pod.ips,
        pod.restarts,
        pod.phase,
        pod.host_network,
    )


@pytest.mark.parametrize(("kind", "asked"), [(None, True), ("ADDED", False), ("MODIFIED", False)])
def test_a_watch_that_begins_anew_asks_for_a_full_list(observed: Observed, kind: str | None, asked: bool) -> None:
    """Fault 4: kopf never tells of deletions that it missed."""
    handlers.take_policy_event(observed, policy_event(kind))
    assert (asked, 1) == (observed.take_list_asked(), len(observed.view().policies))


def test_deletions_are_taken_as_what_they_are(observed: Observed) -> None:
    """R-P13: of a pod at once, of a policy after the next list."""
    handlers.take_policy_event(observed, policy_event("ADDED"))
    handlers.take_pod_event(observed, pod_event("ADDED"))
    handlers.take_pod_event(observed, pod_event("DELETED", 6))
    before = observed.view()
    handlers.take_policy_event(observed, policy_event("DELETED", 7))
    assert ((), True, False, True) == (before.pods, before.known, observed.view().known, observed.take_list_asked())


@pytest.mark.parametrize("broken", [{}, {"metadata": {}}, {"metadata": {"name": 5}}, "text"])
def test_an_event_that_cannot_be_read_is_said_and_left(
    observed: Observed, broken: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 36: others go on."""
    event = cast("kopf.RawEvent", {"type": "ADDED", "object": broken})
    handlers.take_policy_event(observed, event)
    handlers.take_pod_event(observed, event)
    assert 2 == caplog.text.count("cannot be read")


@pytest.mark.parametrize(
    ("error", "shown"), [(ConnectionResetError("gone"), False), (TimeoutError(), False), (KeyError("ours"), True)]
)
def test_what_the_other_end_does_is_said_in_one_line_and_our_own_defects_in_full(error: Exception, shown: bool) -> None:
    """O7: a traceback means a defect, so the API server's troubles must not look like one."""
    record = logging.LogRecord("kopf", logging.ERROR, "", 0, "failed", None, (type(error), error, None))
    assert (handlers.in_one_line(record), record.exc_info is not None) == (True, shown)


@pytest.mark.parametrize(
    ("environment", "server"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://[fd00::1]:6443"),
        ({}, "https://kubernetes.default.svc"),
    ],
)
def test_in_a_pod_the_api_server_is_asked_at_its_address(environment: dict[str, str], server: str) -> None:
    """R-T05: the rest of what the service account has is kept."""
    known = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t", ca_path="/ca.crt")
    found = handlers.by_address(known, environment)
    assert (server, "t", "/ca.crt") == (found.server, found.token, found.ca_path)


def test_namespaces_and_definitions_are_not_watched_with_rights_in_single_namespaces() -> None:
    """R-P08: kopf would try for 14 s before it watches what it may."""
    own = [ControllerSettings(namespace="home", watched=watched) for watched in ((), ("search",))]
    scanning = [handlers.operator_settings(each).scanning.disabled for each in own]
    assert [False, True] == scanning


def test_kopf_is_set_to_write_nothing(observed: Observed) -> None:
    """R-P13, facts.md: no event posting, no peering, only opted-in pods; only event handlers, so no finalizers."""
    settings = handlers.operator_settings(ControllerSettings(namespace="home"))
    assert (False, True, "membudget.dev/managed=true", 500) == (
        settings.posting.enabled,
        settings.peering.standalone,
        settings.watching.label_selectors["v1", "pods"],
        settings.watching.chunk_size,
    )
    registry: Any = handlers.operator_registry(observed, definitions=True)
    blind: Any = handlers.operator_registry(observed, definitions=False)
    kinds = (registry._changing, registry._spawning, registry._indexing, registry._webhooks)
    assert ([0] * 4, 3, 2) == (
        [len(kind.get_all_handlers()) for kind in kinds],
        len(registry._watching.get_all_handlers()),
        len(blind._watching.get_all_handlers()),
    )


@pytest.mark.parametrize(("kind", "asked"), [(None, False), ("ADDED", True), ("MODIFIED", True), ("DELETED", True)])
def test_a_kind_that_comes_or_goes_asks_for_a_full_list(observed: Observed, kind: str | None, asked: bool) -> None:
    """Fault 15: without a policy nothing else would tell."""
    event = cast("kopf.RawEvent", {"type": kind, "object": {"metadata": {"name": "memorypolicies.membudget.dev"}}})
    handlers.take_definition_event(observed, event)
    assert asked is observed.take_list_asked()
