"""The API server through the official Kubernetes client.

Covers: requests, chunked lists, and decoding of the few fields that matter straight from the answer's bytes: the
client's own models of 5,000 pods would take a hundred times their memory. Does not retry or remember. Neighbours:
`cluster` is the protocol it fulfils, `objects` has the wire types.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import urllib3
from kubernetes import client, config
from msgspec.json import Decoder

from membudget_contract.decoding import json_decoder
from membudget_contract.policy import API_VERSION, KIND
from membudget_contract.policy_status import PolicyStatus
from membudget_controller.cluster import Definition, Listed, Stored, Transition
from membudget_controller.errors import ApiFailed, ApiNotFound, api_failure
from membudget_controller.objects import (
    PODS,
    POLICIES,
    ObservedPod,
    ObservedPolicy,
    PodObject,
    PolicyObject,
    pod_from,
    policy_from,
)
from membudget_controller.settings import MANAGED_SELECTOR

CHUNK: Final = 500
MOST_RETRY_AFTER_SECONDS: Final = 60
LIST_ATTEMPTS: Final = 3
"""A list whose continuation has expired begins anew."""
CONTROLLER_NAME: Final = "membudget.dev/controller"
_PLURAL: Final = "memorypolicies"
_GROUP: Final = API_VERSION.partition("/")[0]
_KIND_PATH: Final = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{_PLURAL}.{_GROUP}"
_MERGE: Final = "application/merge-patch+json"
_STRATEGIC_MERGE: Final = "application/strategic-merge-patch+json"
_MOST_NOTE: Final = 1024
_MOST_NAME: Final = 230
"""Of the policy's in that of an event, which may have 253 characters."""
_IN_CLUSTER_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

Wire = TypeVar("Wire")
Kind = TypeVar("Kind")


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str
    next_chunk: str = msgspec.field(name="continue", default="")


class _PolicyList(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: tuple[PolicyObject, ...]


class _PodList(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: tuple[PodObject, ...]


class _ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str


class _DataObject(msgspec.Struct, frozen=True):
    metadata: _ObjectMeta
    data: dict[str, str] | None = None


class _Refusal(msgspec.Struct, frozen=True):
    message: str = ""


class _DefinitionMeta(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    generation: int
    deletion_timestamp: str | None = None


class _Definition(msgspec.Struct, frozen=True):
    metadata: _DefinitionMeta


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Groups(msgspec.Struct, frozen=True):
    groups: tuple[_Named, ...]


class _Kinds(msgspec.Struct, frozen=True):
    resources: tuple[_Named, ...]


# Made by the one thread that imports: see `objects`.
_policy_lists: Final = json_decoder(_PolicyList)
_pod_lists: Final = json_decoder(_PodList)
_data_objects: Final = json_decoder(_DataObject)
_refusals: Final = json_decoder(_Refusal)
_definitions: Final = json_decoder(_Definition)
_groups: Final = json_decoder(_Groups)
_kinds: Final = json_decoder(_Kinds)


def connect() -> client.ApiClient:
    """By KUBECONFIG, else by the pod's service account, else by the user's kubeconfig."""
    load: Any = config
    configuration = client.Configuration()
    if "KUBECONFIG" not in os.environ and _IN_CLUSTER_TOKEN.exists():
        load.load_incluster_config(client_configuration=configuration)
        hooked: Any = configuration
        hooked.refresh_api_key_hook = follow_token(_IN_CLUSTER_TOKEN)
    else:
        load.load_kube_config(client_configuration=configuration)
    return client_for(configuration)


def follow_token(file: Path) -> Callable[[client.Configuration], None]:
    """A hook that takes the token from its file at each request: the kubelet renews it, and the old one may be refused.

    The client's own looks once a minute, and fails on a file that is empty for a moment; the last token is better then.
    """

    def read(configuration: client.Configuration) -> None:
        keys: Any = configuration.api_key
        try:
            token = file.read_text().strip()
        except OSError:
            return
        if token:
            keys["BearerToken"] = f"Bearer {token}"

    return read


def client_for(configuration: client.Configuration) -> client.ApiClient:
    """One that never sleeps: its own pauses would hold up the loop, and orders with it."""
    configuration.retries = urllib3.Retry(
        total=1, redirect=0, status=0, other=0, respect_retry_after_header=False, raise_on_redirect=False
    )
    made = client.ApiClient(configuration)
    made.user_agent = "membudget-controller"
    return made


class ApiCluster:
    """A `cluster.Cluster`."""

    def __init__(
        self, api: client.ApiClient, watched: tuple[str, ...], wall: Callable[[], dt.datetime], request_seconds: float
    ) -> None:
        self._api: Any = api
        self._request_seconds = request_seconds
        self._scopes = tuple(f"/namespaces/{namespace}" for namespace in watched) or ("",)
        self._wall = wall

    def list_policies(self) -> Listed[ObservedPolicy]:
        """In each watched namespace; the version is the oldest of theirs."""
        lists = [self._chunks(f"/apis/{API_VERSION}{scope}/{_PLURAL}", "", _policy_lists) for scope in self._scopes]
        return _joined([(chunk.metadata, chunk.items) for chunks in lists for chunk in chunks], policy_from)

    def list_pods(self) -> Listed[ObservedPod]:
        """Those with the label."""
        lists = [self._chunks(f"/api/v1{scope}/pods", MANAGED_SELECTOR, _pod_lists) for scope in self._scopes]
        return _joined([(chunk.metadata, chunk.items) for chunks in lists for chunk in chunks], pod_from)

    def latest_version(self) -> int:
        """By a list of one, which is read from the store itself."""
        path = f"/apis/{API_VERSION}{self._scopes[0]}/{_PLURAL}"
        first = _decoded(self._send("GET", path, query=[("limit", "1")]), _policy_lists)
        return int(first.metadata.resource_version)

    def read_definition(self) -> Definition | None:
        """It is marked before its first object is deleted."""
        try:
            metadata = self._get(_KIND_PATH, _definitions).metadata
        except ApiFailed as error:
            if error.status == HTTPStatus.FORBIDDEN:
                return None
            raise
        return Definition(metadata.uid, metadata.generation, ending=metadata.deletion_timestamp is not None)

    def is_kind_discovered(self) -> bool:
        """By the same two questions that kopf asks."""
        if not any(each.name == _GROUP for each in self._get("/apis", _groups).groups):
            return False
        try:
            kinds = self._get(f"/apis/{API_VERSION}", _kinds).resources
        except ApiNotFound:
            return False
        return any(each.name == _PLURAL for each in kinds)

    def read_policy(self, namespace: str, name: str) -> ObservedPolicy:
        """One policy."""
        return policy_from(self._get(f"/apis/{API_VERSION}/namespaces/{namespace}/{_PLURAL}/{name}", POLICIES))

    def patch_status(self, policy: ObservedPolicy, status: PolicyStatus) -> ObservedPolicy:
        """A merge patch that names the resourceVersion."""
        path = f"/apis/{API_VERSION}/namespaces/{policy.namespace}/{_PLURAL}/{policy.name}/status"
        body = {"metadata": {"resourceVersion": str(policy.resource_version)}, "status": msgspec.to_builtins(status)}
        return policy_from(_decoded(self._send("PATCH", path, body=body), POLICIES))

    def resize_pod(self, pod: ObservedPod, patch: Mapping[str, Any]) -> ObservedPod:
        """By a strategic merge patch, which knows containers by their names; the uid in it makes it this very pod."""
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/resize"
        return pod_from(_decoded(self._send("PATCH", path, body=patch, patch=_STRATEGIC_MERGE, explained=True), PODS))

    def create_event(self, policy: ObservedPolicy, transition: Transition) -> None:
        """By the events API; the name holds the microsecond, as those of other components do."""
        now = self._wall()
        name = f"{policy.name[:_MOST_NAME]}.{int(now.timestamp() * 1_000_000):x}"
        event = {
            "metadata": {"name": name, "namespace": policy.namespace},
            "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": CONTROLLER_NAME,
            "reportingInstance": CONTROLLER_NAME,
            "action": "Reconcile",
            "reason": transition.reason,
            "note": transition.note[:_MOST_NOTE],
            "type": "Warning" if transition.warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": policy.namespace,
                "name": policy.name,
                "uid": policy.uid,
                "resourceVersion": str(policy.resource_version),
            },
        }
        self._send("POST", f"/apis/events.k8s.io/v1/namespaces/{policy.namespace}/events", body=event)

    def read_secret(self, namespace: str, name: str) -> Stored:
        """With its values as text."""
        return _secret(self._get(f"/api/v1/namespaces/{namespace}/secrets/{name}", _data_objects))

    def create_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> Stored:
        """Opaque."""
        body = {"metadata": {"name": name}, "data": _encoded(data)}
        made = self._send("POST", f"/api/v1/namespaces/{namespace}/secrets", body=body)
        return _secret(_decoded(made, _data_objects))

    def patch_secret(self, namespace: str, name: str, data: Mapping[str, str], resource_version: str) -> Stored:
        """Other keys, labels and annotations stay."""
        body = {"metadata": {"resourceVersion": resource_version}, "data": _encoded(data)}
        patched = self._send("PATCH", f"/api/v1/namespaces/{namespace}/secrets/{name}", body=body)
        return _secret(_decoded(patched, _data_objects))

    def read_config_map(self, namespace: str, name: str) -> Stored:
        """With its values."""
        return _stored(self._get(f"/api/v1/namespaces/{namespace}/configmaps/{name}", _data_objects))

    def create_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> Stored:
        """With these values."""
        body = {"metadata": {"name": name}, "data": dict(data)}
        return _stored(
            _decoded(self._send("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=body), _data_objects)
        )

    def patch_config_map(
        self, namespace: str, name: str, data: Mapping[str, str | None], resource_version: str
    ) -> Stored:
        """Other keys, labels and annotations stay; null removes one."""
        body = {"metadata": {"resourceVersion": resource_version}, "data": dict(data)}
        patched = self._send("PATCH", f"/api/v1/namespaces/{namespace}/configmaps/{name}", body=body)
        return _stored(_decoded(patched, _data_objects))

    def _chunks(self, path: str, selector: str, decoder: Decoder[Wire]) -> list[Wire]:
        """A whole list; all its chunks are of one version."""
        for attempt in range(LIST_ATTEMPTS):
            try:
                return self._read_chunks(path, selector, decoder)
            except ApiFailed as error:
                if error.status != HTTPStatus.GONE or attempt == LIST_ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _read_chunks(self, path: str, selector: str, decoder: Decoder[Wire]) -> list[Wire]:
        chunks: list[Wire] = []
        query = [("limit", str(CHUNK))] + ([("labelSelector", selector)] if selector else [])
        next_chunk: list[tuple[str, str]] = []
        while True:
            chunk: Any = _decoded(self._send("GET", path, query=query + next_chunk), decoder)
            chunks.append(chunk)
            if not chunk.metadata.next_chunk:
                return chunks
            next_chunk = [("continue", chunk.metadata.next_chunk)]

    def _get(self, path: str, decoder: Decoder[Wire]) -> Wire:
        return _decoded(self._send("GET", path), decoder)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: object = None,
        patch: str = _MERGE,
        explained: bool = False,
    ) -> bytes:
        """One request; the body of the answer, unless it is a refusal, whose error says what it says if `explained`."""
        headers = {"Accept": "application/json", "Content-Type": patch if method == "PATCH" else "application/json"}
        request = self._api.param_serialize(
            method, path, query_params=query or [], header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        told = f"{method} {path}"
        try:
            answer = self._api.call_api(*request, _request_timeout=self._request_seconds)
            content: bytes = answer.read() or b""
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            raise ApiFailed(told, None, type(error).__name__) from None
        if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            reason = _explanation(content) if explained else ""
            raise api_failure(told, answer.status, reason or str(answer.reason), _retry_after(answer.headers))
        return content


def _retry_after(headers: Mapping[str, str]) -> float:
    """In seconds, as API servers write it; what is not understood was not asked."""
    text = headers.get("Retry-After", "")
    return float(min(int(text), MOST_RETRY_AFTER_SECONDS)) if text.isascii() and text.isdecimal() else 0.0


def _explanation(content: bytes) -> str:
    """In the API server's words; empty where there are none."""
    try:
        return _refusals.decode(content).message
    except msgspec.DecodeError:
        return ""


def _decoded(content: bytes, decoder: Decoder[Wire]) -> Wire:
    try:
        return decoder.decode(content)
    except msgspec.DecodeError as error:
        raise ApiFailed(decoder.type.__name__.lstrip("_"), None, f"the answer cannot be read: {error}") from None


def _joined(chunks: list[tuple[_ListMeta, tuple[Wire, ...]]], read: Callable[[Wire], Kind]) -> Listed[Kind]:
    version = min(int(metadata.resource_version) for metadata, _ in chunks)
    return Listed(tuple(read(item) for _, items in chunks for item in items), version)


def _stored(wire: _DataObject) -> Stored:
    return Stored(wire.metadata.resource_version, wire.data or {})


def _secret(wire: _DataObject) -> Stored:
    """A value that is no text cannot be one of ours, and is read as damaged."""
    data = {name: base64.b64decode(text).decode(errors="replace") for name, text in (wire.data or {}).items()}
    return Stored(wire.metadata.resource_version, data)


def _encoded(data: Mapping[str, str]) -> dict[str, str]:
    return {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
