"""kopf at the rim: watches policies and pods and shows every event to `observed`.

Covers: kopf's settings, its login, and the handlers. Nothing here patches an object, adds a finalizer or writes an
annotation. Does not decide anything. Neighbours: `objects` reads what kopf brings, `loop` does the work.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any, Final, cast

import aiohttp
import kopf
import msgspec

from membudget_contract.policy import API_VERSION
from membudget_controller.objects import PodObject, PolicyObject, pod_from, policy_from
from membudget_controller.observed import Observed
from membudget_controller.settings import MANAGED_SELECTOR, ControllerSettings

PLURAL: Final = "memorypolicies"
GROUP, _, VERSION = API_VERSION.partition("/")
CHUNK: Final = 500
EXIT_SECONDS: Final = 9.0
"""kopf ends the process by force so long after a signal."""
ERROR_BACKOFFS: Final = (1, 1, 2, 2, 2, 2, 2, 2)
"""kopf's own grow to 21 s: so long a change would wait after an outage."""

_OF_THE_OTHER_END: Final = (aiohttp.ClientError, OSError, kopf.LoginError)

log = logging.getLogger(__name__)


def watch(observed: Observed, settings: ControllerSettings) -> None:
    """Watch until `observed.watch_over` or a signal; signals need the main thread. Sets `watch_over` whenever it ends.

    Raises:
        Exception: kopf gave up, as it does when an answer ends in its middle while it looks for kinds; it may be begun
            anew, and then lists everything again.
    """
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # else a line for every event
    kopf.run(
        registry=operator_registry(observed, definitions=not settings.watched),
        settings=operator_settings(settings),
        # Else it asks /etc/passwd who runs it, which in an image knows nobody.
        identity=cast("Any", "membudget-controller"),
        standalone=True,
        clusterwide=not settings.watched,
        namespaces=settings.watched,
        stop_flag=observed.watch_over,
    )


def operator_settings(own: ControllerSettings) -> kopf.OperatorSettings:
    """What facts and faults taught: kopf watches and writes nothing."""
    settings = kopf.OperatorSettings()
    # With rights in single namespaces, neither namespaces nor definitions may be watched, and kopf would try for 14 s.
    settings.scanning.disabled = bool(own.watched)
    settings.process.ultimate_exiting_timeout = EXIT_SECONDS
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.peering.standalone = True
    settings.watching.label_selectors["v1", "pods"] = MANAGED_SELECTOR
    # Only our own definition is watched for coming and going; the others may be megabytes.
    settings.watching.field_selectors["customresourcedefinitions"] = f"metadata.name={PLURAL}.{GROUP}"
    settings.watching.chunk_size = CHUNK
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.inactivity_timeout = own.watch_silence_seconds
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = ERROR_BACKOFFS
    settings.queueing.exit_timeout = 1
    settings.queueing.idle_timeout = 1
    return settings


def operator_registry(observed: Observed, *, definitions: bool) -> kopf.OperatorRegistry:
    """The login and one event handler for each kind; event handlers need no finalizer.

    `definitions`: this controller may see the definition of its kind, in which case it is watched as well.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**known: Any) -> kopf.ConnectionInfo | None:
        """By KUBECONFIG, else by the pod's service account, else by the user's kubeconfig; as `api_client` does."""
        if "KUBECONFIG" in os.environ:
            return kopf.login_with_kubeconfig(**known)
        in_cluster = kopf.login_with_service_account(**known)
        return by_address(in_cluster, os.environ) if in_cluster else kopf.login_with_kubeconfig(**known)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_policy(event: kopf.RawEvent, **_: Any) -> None:
        take_policy_event(observed, event)

    @kopf.on.event("v1", "pods", registry=registry)
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        take_pod_event(observed, event)

    if definitions:

        @kopf.on.event("apiextensions.k8s.io", "v1", "customresourcedefinitions", registry=registry)
        async def on_definition(event: kopf.RawEvent, **_: Any) -> None:
            take_definition_event(observed, event)

    @kopf.on.cleanup(registry=registry)
    def release(**_: Any) -> None:
        """After a signal kopf still has a thread that waits for the flag, and does not end before it."""
        observed.watch_over.set()

    _ = (login, on_policy, on_pod, release)  # registered; nobody calls them by name
    return registry


def by_address(known: kopf.ConnectionInfo, environment: Mapping[str, str]) -> kopf.ConnectionInfo:
    """The API server where the kubelet says it is, not by kopf's name for it: a cluster's DNS may be down or absent."""
    host, port = (environment.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    if not host or not port:
        return known
    return dataclasses.replace(known, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")


def in_one_line(record: logging.LogRecord) -> bool:
    """A filter for log handlers: what the other end of a connection did needs no traceback of this one."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, _OF_THE_OTHER_END) or isinstance(error and error.__cause__, _OF_THE_OTHER_END):
        record.exc_info = record.exc_text = None
    return True


def take_policy_event(observed: Observed, event: kopf.RawEvent) -> None:
    """Show one event to `observed`; without a type it is of the list that begins a watch."""
    try:
        policy = policy_from(msgspec.convert(event["object"], PolicyObject))
    except (msgspec.ValidationError, ValueError) as error:
        log.warning("an event of a policy cannot be read: %s", error)
        return
    observed.policy_watch.tell(policy)
    if event["type"] == "DELETED":
        observed.delete_policy(policy)
        return
    if event["type"] is None:
        observed.ask_list()  # before anything follows from what it shows: of what has gone it says nothing
    observed.see_policy(policy)


def take_definition_event(observed: Observed, event: kopf.RawEvent) -> None:
    """The kind came, changed or goes: a list tells which; the list that begins a watch of it says nothing new."""
    if event["type"] is not None:
        observed.ask_list()


def take_pod_event(observed: Observed, event: kopf.RawEvent) -> None:
    """Show one event to `observed`; an opted-out pod arrives as deleted."""
    try:
        pod = pod_from(msgspec.convert(event["object"], PodObject))
    except (msgspec.ValidationError, ValueError) as error:
        log.warning("an event of a pod cannot be read: %s", error)
        return
    observed.pod_watch.tell(pod)
    if event["type"] == "DELETED":
        observed.delete_pod(pod)
        return
    if event["type"] is None:
        observed.ask_list()  # before anything follows from what it shows: of what has gone it says nothing
    observed.see_pod(pod)
