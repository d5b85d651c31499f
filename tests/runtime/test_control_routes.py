"""Reload, persist, allocations and tracked memory over the real control socket of a real runtime."""

import contextlib
import http.client
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from control_socket import Refused, ask
from membudget_contract import control_api as api
from membudget_contract.plan import Message
from membudget_contract.profiles import EMBEDDING_BUFFER
from membudget_contract.unix_http import UnixConnection
from membudget_runtime.cache import BoundedCache
from membudget_runtime.memory_runtime import MemoryRuntime
from membudget_runtime.reloads import Reloading
from runtime.fakes import MB

ENVIRONMENT = {"MEMBUDGET_TOTAL": "4Gi", "MEMBUDGET_BASE_LIMIT": "4Gi"}


@pytest.fixture
def served(tmp_path: Path) -> Generator[tuple[MemoryRuntime, Path]]:
    """A runtime with room for everything a test puts in, and its socket."""
    with contextlib.closing(MemoryRuntime(tmp_path / "state", ENVIRONMENT)) as runtime:
        runtime.serve(tmp_path / "engine.sock")
        yield runtime, tmp_path / "engine.sock"


def grant(socket: Path, grant_id: str, byte_count: int, component: str = EMBEDDING_BUFFER) -> api.Granted:
    """Ask for leave to allocate."""
    asked = api.AllocationRequest(id=grant_id, request_bytes=byte_count, component=component)
    return ask(socket, "POST", api.ALLOCATIONS_PATH, api.Granted, asked)


def test_a_grant_over_the_socket_is_listed_counted_and_released(served: tuple[MemoryRuntime, Path]) -> None:
    """R-S09, R-E09: in its component, not owned yet."""
    _, socket = served
    assert grant(socket, "a", 5 * MB).granted_bytes == 5 * MB
    listed = ask(socket, "GET", api.ALLOCATIONS_PATH, api.Allocations)
    report = ask(socket, "GET", api.REPORT_PATH, api.Report)
    part = next(part for part in report.components if part.name == EMBEDDING_BUFFER)
    assert ([one.id for one in listed.allocations], listed.held_bytes) == (["a"], 5 * MB)
    assert (report.allocations_bytes, part.reserved_bytes, part.owned_bytes) == (5 * MB, 5 * MB, 0)
    release = api.AllocationRelease(id="a")
    answers = [ask(socket, "POST", api.ALLOCATIONS_RELEASE_PATH, api.Released, release) for _ in range(2)]
    assert [answer.released_bytes for answer in answers] == [5 * MB, 0]


@pytest.mark.parametrize(
    ("byte_count", "component", "refusal"),
    [
        (18 * MB, EMBEDDING_BUFFER, (503, "NoRoom", "1")),
        (60 * MB, EMBEDDING_BUFFER, (507, "ValueTooLarge", None)),
        (4 * MB, EMBEDDING_BUFFER, (409, "IdTaken", None)),
        (5 * MB, "misspelt", (404, "UnknownComponent", None)),
    ],
)
def test_refusals_are_typed_and_say_whether_to_try_again(
    served: tuple[MemoryRuntime, Path], byte_count: int, component: str, refusal: tuple[int, str, str | None]
) -> None:
    """R-S09, R-E09: Retry-After where it may help."""
    _, socket = served
    grant(socket, "a", 40 * MB)
    with pytest.raises(Refused) as refused:
        grant(socket, "a" if refusal[1] == "IdTaken" else "b", byte_count, component)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after) == refusal


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (api.ALLOCATIONS_PATH, {"id": "", "requestBytes": 1}),
        (api.ALLOCATIONS_PATH, {"id": "a", "requestBytes": 0}),
        (api.ALLOCATIONS_PATH, {"id": "a", "requestBytes": 10**30}),
        (api.ALLOCATIONS_PATH, {"id": "a" * 201, "requestBytes": 1}),
        (api.ALLOCATIONS_PATH, {"id": "a", "requestBytes": 1, "purpose": "x" * 201}),
        (api.TRACKED_PATH, {"id": "a", "component": "index", "trackedBytes": -1}),
        (api.ALLOCATIONS_RELEASE_PATH, {}),
        (api.RELOAD_PATH, []),
    ],
)
def test_a_request_out_of_bounds_is_refused_as_invalid(
    served: tuple[MemoryRuntime, Path], path: str, body: object
) -> None:
    """R-S09: 400 with the field; nothing is held."""
    runtime, socket = served
    with contextlib.closing(UnixConnection(socket, 20)) as connection:
        connection.request("POST", path, msgspec.json.encode(body))
        answer: http.client.HTTPResponse = connection.getresponse()
        assert (answer.status, msgspec.json.decode(answer.read())["reason"]) == (400, "Invalid")
    assert (runtime.limiter.held_bytes, runtime.tracked().tracked) == (0, ())


def test_memory_is_tracked_and_released_over_the_socket(served: tuple[MemoryRuntime, Path]) -> None:
    """R-S09, R-E10."""
    _, socket = served
    track = api.Track(id="model", component="working", tracked_bytes=3 * MB, type="onnx")
    tracked = ask(socket, "POST", api.TRACKED_PATH, api.Tracked, track)
    listed = ask(socket, "GET", api.TRACKED_PATH, api.TrackedList)
    report = ask(socket, "GET", api.REPORT_PATH, api.Report)
    assert (listed.tracked, report.tracked_bytes, report.managed_bytes) == ((tracked,), 3 * MB, 3 * MB)
    release: Message = api.TrackRelease(id="model")
    assert ask(socket, "POST", api.TRACKED_RELEASE_PATH, api.Released, release).released_bytes == 3 * MB
    assert ask(socket, "GET", api.TRACKED_PATH, api.TrackedList).tracked == ()


def test_a_reload_over_the_socket_tells_the_observers(served: tuple[MemoryRuntime, Path]) -> None:
    """R-P09, R-S05: with each one's result."""
    runtime, socket = served
    runtime.on_reload("index", lambda: Reloading(changed=True))
    runtime.on_reload("settings", lambda: Reloading(changed=False, problem="no YAML"))
    reloaded = ask(socket, "POST", api.RELOAD_PATH, api.Reloaded, api.ReloadRequest())
    assert (reloaded.changed, reloaded.problem) == (True, "settings: no YAML")
    assert [(one.name, one.ok) for one in reloaded.observers] == [("index", True), ("settings", False)]


def test_a_persist_over_the_socket_says_what_is_on_disk(served: tuple[MemoryRuntime, Path]) -> None:
    """R-S05: no body is asked for."""
    runtime, socket = served
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
    runtime.on_persist("semanticCache", cache)
    cache.put(b"key", b"value")
    persisted = ask(socket, "POST", api.PERSIST_PATH, api.Persisted)
    assert (persisted.entries, persisted.written_bytes > 100, persisted.problem) == (1, True, None)


def test_the_report_shows_requests_and_evictions(served: tuple[MemoryRuntime, Path]) -> None:
    """R-S06: latency on the control socket; unknown before the first request."""
    runtime, socket = served
    cache: BoundedCache[bytes] = runtime.cache("semanticCache", ttl_seconds=60.0)
    for number in range(10):
        cache.put(b"%d" % number, bytes(100))
    before = ask(socket, "GET", api.REPORT_PATH, api.Report)
    runtime.observe_request(0.25)
    freed = runtime.free(api.FreeRequest(means=api.Means.EVICT, target_bytes=MB))
    after = ask(socket, "GET", api.REPORT_PATH, api.Report)
    assert (before.requests, before.evictions, freed.entries, freed.candidates) == (None, 0, 10, 10)
    assert after.requests is not None
    assert (after.requests.count, 250_000 <= after.requests.p99_microseconds <= 265_625) == (1, True)
    assert (after.evictions, after.components[0].evictions) == (10, 10)
