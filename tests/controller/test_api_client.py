"""The official client against a real HTTP server that answers as the API server does (R-P08)."""

from __future__ import annotations

import base64
import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes import client

from controller.cluster_objects import make_policy
from membudget_controller.api_client import ApiCluster, client_for, follow_token
from membudget_controller.cluster import Definition, Stored, Transition
from membudget_controller.errors import ApiConflict, ApiFailed, ApiNotFound

NOW = dt.datetime(2026, 11, 21, 12, 0, 0, 250, tzinfo=dt.UTC)
Asked = tuple[str, str, dict[str, list[str]], Any]


class ApiServer(ThreadingHTTPServer):
    """Answers from a list, in order; remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, object]] = []
        self.asked: list[Asked] = []
        self.content_types: list[str | None] = []
        self.authorizations: list[str | None] = []
        self.retry_after = ""


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        server = cast("ApiServer", self.server)
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        server.asked.append((self.command, url.path, parse_qs(url.query), body))
        server.content_types.append(self.headers.get("Content-Type"))
        server.authorizations.append(self.headers.get("Authorization"))
        status, content = server.answers.pop(0)
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        if server.retry_after:
            self.send_header("Retry-After", server.retry_after)
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815  the base class names them so

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent."""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Running."""
    with ApiServer() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def cluster_of(server: ApiServer, *watched: str) -> ApiCluster:
    """The client of it."""
    configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    return ApiCluster(client_for(configuration), watched, lambda: NOW, 5.0)


def test_each_request_bears_the_token_that_its_file_holds_then(server: ApiServer, tmp_path: Path) -> None:
    """R-P08, fault 11: the kubelet renews it; while the file is empty or away the last one is better than none."""
    file = tmp_path / "token"
    configuration: Any = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    configuration.api_key["BearerToken"] = "Bearer of the start"
    configuration.refresh_api_key_hook = follow_token(file)
    cluster = ApiCluster(client_for(configuration), (), lambda: NOW, 5.0)
    for content in ("first\n", "", None, "second"):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": []})]
        cluster.latest_version()
    assert ["Bearer first"] * 3 + ["Bearer second"] == server.authorizations


def pod_list(version: int, *names: str, more: str = "") -> dict[str, Any]:
    """One chunk."""
    items = [{"metadata": {"name": n, "namespace": "search", "uid": n, "resourceVersion": "3"}} for n in names]
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": items}


def refusal(status: int) -> tuple[int, dict[str, Any]]:
    """A Status, as the API server refuses."""
    return status, {"kind": "Status", "code": status, "message": "with details"}


def test_a_list_is_read_in_chunks_of_one_version(server: ApiServer) -> None:
    """Design, Orders: 500 at a time, only opted-in pods."""
    server.answers = [(200, pod_list(40, "a", "b", more="next")), (200, pod_list(40, "c"))]
    listed = cluster_of(server).list_pods()
    assert (40, ["a", "b", "c"]) == (listed.resource_version, [pod.name for pod in listed.items])
    selector = {"limit": ["500"], "labelSelector": ["membudget.dev/managed=true"]}
    assert [selector, {**selector, "continue": ["next"]}] == [asked[2] for asked in server.asked]


def test_a_list_whose_continuation_expired_begins_anew(server: ApiServer) -> None:
    """Fault 4: 410 in the middle; nothing of the first attempt is kept."""
    first = (200, pod_list(40, "gone", more="next"))
    server.answers = [first, refusal(410), (200, pod_list(50, "a"))]
    listed = cluster_of(server).list_pods()
    assert (50, ["a"]) == (listed.resource_version, [pod.name for pod in listed.items])


def test_a_list_that_expires_every_time_fails(server: ApiServer) -> None:
    """R-P08: and does not ask for ever."""
    server.answers = [refusal(410)] * 5
    with pytest.raises(ApiFailed):
        cluster_of(server).list_pods()
    assert 3 == len(server.asked)


def test_watched_namespaces_are_listed_one_by_one_at_the_oldest_version(server: ApiServer) -> None:
    """R-P08: what changed between two lists is not taken for deleted."""
    server.answers = [(200, pod_list(40, "a")), (200, pod_list(44, "b"))]
    assert 40 == cluster_of(server, "one", "two").list_pods().resource_version
    assert ["/api/v1/namespaces/one/pods", "/api/v1/namespaces/two/pods"] == [asked[1] for asked in server.asked]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, {"metadata": {"uid": "one", "generation": 3}}), Definition("one", 3, ending=False)),
        (
            (200, {"metadata": {"uid": "one", "generation": 3, "deletionTimestamp": "2026-11-21T00:00:00Z"}}),
            Definition("one", 3, ending=True),
        ),
        (refusal(403), None),
    ],
)
def test_a_kind_that_ends_is_known_by_its_definition(
    server: ApiServer, answer: tuple[int, object], expected: Definition | None
) -> None:
    """Fault 15: it is marked before its first object goes; who may not see it cannot tell."""
    server.answers = [answer]
    assert expected == cluster_of(server).read_definition()
    assert server.asked[0][1].endswith("/customresourcedefinitions/memorypolicies.membudget.dev")


def test_a_kind_without_a_definition_is_gone(server: ApiServer) -> None:
    """Fault 15: not the same as one that may not be seen."""
    server.answers = [refusal(404)]
    with pytest.raises(ApiNotFound):
        cluster_of(server).read_definition()


OWN_GROUP: object = {"groups": [{"name": "apps"}, {"name": "membudget.dev"}]}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(200, {"groups": [{"name": "apps"}]})], False),
        ([(200, OWN_GROUP), refusal(404)], False),
        ([(200, OWN_GROUP), (200, {"resources": [{"name": "others"}]})], False),
        ([(200, OWN_GROUP), (200, {"resources": [{"name": "memorypolicies"}]})], True),
    ],
)
def test_a_kind_is_discovered_when_group_and_version_tell_of_it(
    server: ApiServer, answers: list[tuple[int, object]], expected: bool
) -> None:
    """Fault 15: they come one after the other, after the kind is served."""
    server.answers = answers
    assert expected is cluster_of(server).is_kind_discovered()


def test_what_the_store_counts_to_is_asked_with_a_list_of_one(server: ApiServer) -> None:
    """Fault 22: as cheap as a question can be."""
    server.answers = [(200, {"metadata": {"resourceVersion": "77", "continue": "more"}, "items": []})]
    assert 77 == cluster_of(server, "one").latest_version()
    assert [("/apis/membudget.dev/v1alpha1/namespaces/one/memorypolicies", {"limit": ["1"]})] == [
        asked[1:3] for asked in server.asked
    ]


def test_a_status_is_patched_at_its_version_and_nothing_else(server: ApiServer) -> None:
    """R-P10: merge patch of the subresource; a conflict is a conflict."""
    metadata = {"name": "retrieval", "namespace": "search", "uid": "u", "resourceVersion": "9", "generation": 1}
    server.answers = [(200, {"metadata": metadata, "spec": {}}), refusal(409)]
    policy = make_policy(version=8)
    assert 9 == cluster_of(server).patch_status(policy, policy.status).resource_version
    with pytest.raises(ApiConflict):
        cluster_of(server).patch_status(policy, policy.status)
    method, path, _, body = server.asked[0]
    assert ("PATCH", {"metadata", "status"}, {"resourceVersion": "8"}) == (method, set(body), body["metadata"])
    assert path.endswith("/namespaces/search/memorypolicies/retrieval/status")
    assert "application/merge-patch+json" == server.content_types[0]


def test_a_secret_is_text_here_and_base64_on_the_wire(server: ApiServer) -> None:
    """R-P08: and its value is in no error, whatever the API server answers."""
    encoded = base64.b64encode(b"very secret").decode()
    kept = {"metadata": {"resourceVersion": "3"}, "data": {"privateKey": encoded}}
    server.answers = [(200, kept), (200, kept), refusal(422)]
    cluster = cluster_of(server)
    read = cluster.read_secret("home", "keys")
    cluster.patch_secret("home", "keys", {"privateKey": "very secret"}, "3")
    with pytest.raises(ApiFailed) as failure:
        cluster.patch_secret("home", "keys", {"privateKey": "very secret"}, "3")
    assert (Stored("3", {"privateKey": "very secret"}), {"privateKey": encoded}) == (read, server.asked[1][3]["data"])
    assert [False, False, False] == ["very secret" in text for text in (repr(read), str(failure.value), repr(failure))]


def test_an_event_names_the_policy_and_what_happened(server: ApiServer) -> None:
    """R-P10: by the events API, with a note that fits."""
    server.answers = [(201, {})]
    cluster_of(server).create_event(make_policy(), Transition("Refused", "x" * 2000, warning=True))
    body = server.asked[0][3]
    assert ("Warning", "Refused", 1024, "2026-11-21T12:00:00.000250Z") == (
        body["type"],
        body["reason"],
        len(body["note"]),
        body["eventTime"],
    )
    assert ("MemoryPolicy", "retrieval") == (body["regarding"]["kind"], body["regarding"]["name"])
    assert body["metadata"]["name"].startswith("retrieval.")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(refusal(404), ApiNotFound), (refusal(500), ApiFailed), ((200, b"<html>"), ApiFailed), ((200, b"{}"), ApiFailed)],
)
def test_what_is_no_answer_is_an_error(server: ApiServer, answer: tuple[int, object], error: type[ApiFailed]) -> None:
    """R-P08: typed, and never taken for an empty list."""
    server.answers = [answer]
    with pytest.raises(error):
        cluster_of(server).list_policies()


@pytest.mark.parametrize(
    ("header", "expected"),
    [("5", 5.0), ("86400", 60.0), ("", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("-1", 0.0)],
)
def test_an_overloaded_api_server_is_left_alone_for_as_long_as_it_asks(
    server: ApiServer, header: str, expected: float
) -> None:
    """Fault 8: the error says for how long; nobody sleeps here, where orders would wait too."""
    server.answers = [refusal(429)] * 3
    server.retry_after = header
    with pytest.raises(ApiFailed) as raised:
        cluster_of(server).list_policies()
    assert (raised.value.retry_after, len(server.asked)) == (expected, 1)


def test_nobody_there_is_an_error(server: ApiServer) -> None:
    """Fault 1: without a status, because no answer came."""
    cluster = cluster_of(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(ApiFailed) as failure:
        cluster.read_definition()
    assert failure.value.status is None
