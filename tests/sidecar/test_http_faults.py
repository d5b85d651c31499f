"""Whatever peers send to a real sidecar process: a refusal or a closed connection soon, and the service goes on.

Faults 106 to 113 on both faces. After each of them a scrape answers at once, the process has not grown by more than
1 MiB, its descriptors are back, and its log holds no traceback.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Generator, Iterator

import pytest

from membudget_contract.orders import ORDER_PATH
from membudget_sidecar.serving.http_server import MAX_CONNECTIONS, STEP_SECONDS
from sidecar.fake_engine import eventually
from sidecar.raw_peer import Face, Peer, received, status_of
from sidecar.sidecar_process import Started
from sidecar.signed_orders import POD

MIB = 1 << 20
LOCAL, NETWORK = Face("local", "/v1/actions"), Face("network", ORDER_PATH)
SOON = 2.0
FACES = pytest.mark.parametrize("face", [LOCAL, NETWORK], ids=lambda face: face.name)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Generator[Started]:
    """In controller mode: then both faces take bodies."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as environment:
        for field in ("namespace", "name", "uid"):
            environment.setenv(f"MEMBUDGET_POD_{field.upper()}", getattr(POD, field))
        made = Started(folder, "--keys", str(folder / "keys"))
    eventually(lambda: bool(made.status()), "it answers")
    yield made
    assert 0 == made.end()[0]


@pytest.fixture
def peer(started: Started) -> Generator[Peer]:
    """A peer; and what must hold after whatever it did."""
    made = Peer(started)
    for face in (LOCAL, NETWORK):  # what is imported and allocated with the first request of a kind
        made.send(face.name, posted(face, b"{}"))
    made.scrape()
    files, resident = made.open_files(), made.resident_bytes()
    yield made
    answered, seconds = made.scrape()
    assert (200, True) == (answered.status, seconds < SOON)
    eventually(lambda: made.open_files() <= files, "its descriptors are back")
    assert made.resident_bytes() - resident <= 1 * MIB
    assert "Traceback" not in started.log()


def head(face: Face, *headers: str, method: str = "POST", path: str = "") -> bytes:
    """A request's head."""
    return "\r\n".join([f"{method} {path or face.post} HTTP/1.1", "Host: pod", *headers, "", ""]).encode("latin-1")


def posted(face: Face, body: bytes, *headers: str) -> bytes:
    """A whole request."""
    return head(face, f"Content-Length: {len(body)}", *headers) + body


# --- 106, 107: bodies -----------------------------------------------------------------------------------------------


@FACES
def test_no_body_and_an_empty_one_are_no_request(peer: Peer, face: Face) -> None:
    """R-S09, fault 106: over the network it is not even parsed before its signature."""
    expected = 400 if face is LOCAL else 401
    assert [expected, expected] == [status_of(peer.send(face.name, each)) for each in (head(face), posted(face, b""))]


@FACES
@pytest.mark.parametrize("length", ["1073741824", "9" * 18, "0" * 20, "9" * 10_000, "-1", "1e3", "1_0", "5, 6"])
def test_a_length_that_nothing_may_have_is_refused_before_the_body(peer: Peer, face: Face, length: str) -> None:
    """R-S09, fault 106."""
    assert status_of(peer.send(face.name, head(face, f"Content-Length: {length}"))) in {400, 413}


@FACES
def test_a_gigabyte_that_is_really_sent_is_not_read(peer: Peer, face: Face) -> None:
    """R-S09, fault 106: refused on its head, and closed on the sender."""
    began = time.monotonic()
    sent = itertools.count()

    def gigabyte() -> Iterator[bytes]:
        yield head(face, f"Content-Length: {1 << 30}")
        for _ in range(1 << 14):
            next(sent)
            yield bytes(1 << 16)

    assert status_of(peer.stream(face.name, gigabyte())) in {0, 413}
    assert (True, True) == (next(sent) < 200, time.monotonic() - began < SOON)


@FACES
def test_chunks_without_end_are_cut(peer: Peer, face: Face) -> None:
    """R-S09, fault 106: what came counts, not what was announced."""
    chunks = itertools.repeat(b"1000\r\n" + bytes(0x1000) + b"\r\n", 1 << 15)
    content = peer.stream(face.name, itertools.chain([head(face, "Transfer-Encoding: chunked")], chunks))
    assert status_of(content) in {0, 413}


@FACES
def test_a_million_chunks_of_one_byte_are_cut(peer: Peer, face: Face) -> None:
    """R-S09, fault 107: CVE-2025-69229; each of them costs a parser's turn."""
    began = time.monotonic()
    chunks = itertools.repeat(b"1\r\n \r\n" * 1000, 1000)
    content = peer.stream(face.name, itertools.chain([head(face, "Transfer-Encoding: chunked")], chunks))
    assert status_of(content) in {0, 413}
    assert time.monotonic() - began < SOON


@FACES
@pytest.mark.parametrize("size", [b"ffffffffffffffffffff", b"-1", b"0x10", b"1" * 20_000, b"1;" + b"x" * 40_000])
def test_chunk_sizes_that_lie_are_refused(peer: Peer, face: Face, size: bytes) -> None:
    """R-S09, fault 107."""
    content = peer.send(
        face.name, head(face, "Transfer-Encoding: chunked"), size + b"\r\n", b"x" * 10_000, half_close=True
    )
    assert status_of(content) in {400, 413, 431}


@FACES
def test_bodies_in_parallel_hold_no_more_than_their_common_bound(peer: Peer, face: Face) -> None:
    """R-S09, fault 106: the most connections, each with most of the longest body; those that came first give way."""
    resident = peer.resident_bytes()
    connections = [peer.connect(face.name) for _ in range(MAX_CONNECTIONS)]
    try:
        body = bytes(60_000 if face is LOCAL else 250_000)
        for connection in connections:
            with connection.dup() as sending:
                sending.settimeout(SOON)
                try:
                    sending.sendall(head(face, f"Content-Length: {len(body) + 1}") + body)
                except OSError:
                    continue
        assert 200 == peer.scrape()[0].status
        assert peer.resident_bytes() - resident <= 2 * MIB
    finally:
        for connection in connections:
            connection.close()


# --- 108, 109: kinds of content ---------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: text/plain",
        "Content-Encoding: gzip",
        "Content-Encoding: br",
        "Content-Encoding: identity, gzip",
    ],
)
def test_what_is_not_plain_json_is_415(peer: Peer, face: Face, header: str) -> None:
    """R-S09, fault 108: CVE-2025-69228, CVE-2026-34517; and a form of a web page cannot ask."""
    assert 415 == status_of(peer.send(face.name, posted(face, b'{"kind": "Trim"}', header)))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"kind":' * 8000,
        b'{"kind": "Evict", "targetBytes": NaN}',
        b'{"kind": "Evict", "targetBytes": Infinity}',
        b'{"kind": "Evict", "targetBytes": ' + b"9" * 10_000 + b"}",
        b'{"kind": "Evict", "targetBytes": 1e999}',
        b'{"kind": "Trim", "description": "\xff\xfe"}',
        b'{"kind": "Trim", "description": "\xed\xa0\x80"}',
        b'{"kind": "Trim", "description": "\\ud800"}',
        b'\xef\xbb\xbf{"kind": "Trim"}',
        '{"kind": "Trim"}'.encode("utf-16"),
        b'{"kind": "Trim"} {}',
        b'{"kind": "Trim"',
        b"null",
    ],
    ids=lambda body: repr(body)[:40],
)
def test_json_that_is_none_is_refused(peer: Peer, body: bytes) -> None:
    """R-S09, fault 109: depth, NaN, numbers without end, bad UTF-8, lone surrogates, a byte order mark."""
    content = peer.send(LOCAL.name, posted(LOCAL, body))
    assert (400, "Invalid") == (status_of(content), json.loads(content.partition(b"\r\n\r\n")[2])["reason"])


@FACES
def test_json_of_depth_100_000_does_not_reach_a_parser(peer: Peer, face: Face) -> None:
    """R-S09, fault 109: too long here, without a signature there."""
    expected = 413 if face is LOCAL else 401
    assert expected == status_of(peer.send(face.name, posted(face, b"[" * 100_000)))


def test_of_a_key_that_stands_twice_the_last_holds(peer: Peer, started: Started) -> None:
    """R-S09, fault 109: as msgspec reads it, and each of them must be valid. Who may write one may write the other."""
    body = b'{"kind": "Collect", "kind": "Trim"}'
    content = peer.send(LOCAL.name, posted(LOCAL, body))
    assert 202 == status_of(content)
    eventually(lambda: started.ask("GET", "/v1/actions")[1]["actions"][-1]["kind"] == "Trim", "it is listed")


# --- 110: heads ---------------------------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"".join(b"X-%d: y\r\n" % number for number in range(10_000)), {431}),
        (b"X: y\r\n" * 65, {431}),
        (b"X: " + b"y" * MIB + b"\r\n", {431}),
        (b"y" * MIB, {431, 400}),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", {400}),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n", {400}),
        (b"Transfer-Encoding: gzip, chunked\r\n", {501}),
        (b"X: y\r\n folded\r\n", {400}),
        (b" folded: y\r\n", {400}),
        (b"X : y\r\n", {400}),
        (b"X\x00: y\r\n", {400}),
        (b"X: y\x00\r\n", {400}),
        (b"Host: other\r\n", {400}),
        (b": y\r\n", {400}),
        (b"X: y\rZ: z\r\n", {400}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_heads_that_servers_understand_differently_are_refused(
    peer: Peer, face: Face, content: bytes, expected: set[int]
) -> None:
    """R-S09, fault 110: too many, too long, two lengths, folded lines, bytes that no header has."""
    sent = f"GET {'/v1/status' if face is LOCAL else '/metrics'} HTTP/1.1\r\nHost: pod\r\n".encode() + content + b"\r\n"
    assert status_of(peer.send(face.name, sent, half_close=True)) in expected


@FACES
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /metrics\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\r\n\r\n\r\n", 400),
        (b"\x00" * 100, 400),
        (b"GET /metrics HTTP/9.9\r\nHost: pod\r\n\r\n", 505),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_http_1_is_refused(peer: Peer, face: Face, content: bytes, expected: int) -> None:
    """R-S09, fault 110: the preface of HTTP/2, TLS on the plain port, no Host, nothing at all."""
    assert expected == status_of(peer.send(face.name, content, half_close=True))


# --- 112: targets and methods ---------------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize(
    "path",
    [
        "/v1/../v1/status",
        "/v1/%2e%2e/v1/status",
        "/v1/actions/%00",
        "/v1\\status",
        "//metrics",
        "/metrics/",
        "/%6detrics",
        "/v1/actions/..",
        "/v1/actions/1/2",
        "/metrics#x",
        "/" + "a" * 10_000,
        "http://pod/metrics",
        "*",
        "pod:80",
        "metrics",
        "/metrics\x00",
        "/m\xe9trics",
        "/v1/status?" + "&".join(f"f{number}=1" for number in range(1000)),
        "/v1/status?a=1&a=2",
        "/v1/status?a=%ff",
    ],
)
def test_no_other_spelling_reaches_a_route(peer: Peer, face: Face, path: str) -> None:
    """R-S09, fault 112: escapes, dots, backslashes and absolute addresses are not resolved, so no route has them."""
    assert status_of(peer.send(face.name, head(face, method="GET", path=path))) in {400, 404}


@FACES
@pytest.mark.parametrize("method", ["PATCH", "TRACE", "OPTIONS", "CONNECT", "get", "PROPFIND", "A" * 5000])
def test_odd_methods_are_405(peer: Peer, face: Face, method: str) -> None:
    """R-S09, fault 112."""
    assert 405 == status_of(peer.send(face.name, head(face, method=method)))


# --- 111, 113: time ---------------------------------------------------------------------------------------------


@FACES
def test_a_scrape_gets_through_a_thousand_that_never_finish(
    peer: Peer, face: Face, started: Started, publish: Callable[[str], None]
) -> None:
    """R-S10, fault 111: slowloris; the slowest give way, so a scrape and a status answer as ever."""
    silent = [peer.connect(face.name) for _ in range(1000)]
    try:
        for connection in silent:
            try:
                connection.send(head(face)[:-2] + b"X-Slow: ")
            except OSError:
                continue  # this one has given way already
        took = [peer.scrape()[1] for _ in range(20)]
        assert {} != started.status()
        assert max(took) < SOON
        assert peer.open_files() < MAX_CONNECTIONS * 2 + 32
        publish(f"scrape under 1,000 unfinished connections ({face.name}): worst of 20 {max(took) * 1000:.1f} ms")
    finally:
        for connection in silent:
            connection.close()


@FACES
def test_a_head_that_drips_is_given_up(peer: Peer, face: Face) -> None:
    """R-S09, fault 111: a byte now and then does not prolong it."""
    began = time.monotonic()
    drips = (time.sleep(0.25) or bytes([byte]) for byte in itertools.cycle(b"GET /metrics HTTP/1.1\r\nX: y"))
    content = peer.stream(face.name, itertools.islice(drips, 60))
    assert status_of(content) in {0, 408}
    assert STEP_SECONDS - 1 < time.monotonic() - began < STEP_SECONDS + 4


@FACES
def test_a_peer_that_asks_to_continue_and_stalls_is_given_up(peer: Peer, face: Face) -> None:
    """R-S09, fault 113: it is told to continue, and then has the time that any body has."""
    began = time.monotonic()
    content = peer.send(face.name, head(face, "Content-Length: 10", "Expect: 100-continue"))
    assert content.startswith(b"HTTP/1.1 100 ")
    assert 408 == status_of(content.partition(b"\r\n\r\n")[2])
    assert time.monotonic() - began < STEP_SECONDS + 2


@FACES
def test_a_peer_that_asks_to_continue_with_too_much_is_told_no(peer: Peer, face: Face) -> None:
    """R-S09, fault 113: before it sends a byte of it."""
    content = peer.send(face.name, head(face, f"Content-Length: {1 << 30}", "Expect: 100-continue"))
    assert 413 == status_of(content)


@FACES
def test_who_closes_its_side_behind_a_request_is_answered(peer: Peer, face: Face) -> None:
    """R-S09, fault 113: half a close is no leaving."""
    expected = 400 if face is LOCAL else 401
    assert expected == status_of(peer.send(face.name, posted(face, b"{}"), half_close=True))


@FACES
@pytest.mark.parametrize("sent", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: pod\r\n"])
def test_who_leaves_early_leaves_nothing_behind(peer: Peer, face: Face, sent: bytes) -> None:
    """R-S09, fault 113."""
    for _ in range(100):
        with peer.connect(face.name) as connection:
            connection.sendall(sent)
    assert status_of(peer.send(face.name, sent, half_close=True)) in {0, 400}


@FACES
def test_of_pipelined_requests_the_first_is_answered(peer: Peer, face: Face) -> None:
    """R-S09, fault 113: one request for each connection; ten thousand behind it cost nothing."""
    path = "/v1/status" if face is LOCAL else "/metrics"
    content = peer.send(face.name, head(face, method="GET", path=path) * 10_000)
    assert (200, 1) == (status_of(content), content.count(b"HTTP/1.1 200"))
    assert b"\r\nConnection: close\r\n" in content


def test_who_does_not_take_its_answer_loses_it(peer: Peer) -> None:
    """R-S10, fault 111: and holds no connection longer than any other."""
    connections = [peer.connect("network") for _ in range(MAX_CONNECTIONS * 2)]
    for connection in connections:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: pod\r\n\r\n")
    assert 200 == peer.scrape()[0].status
    ended = [received(connection) for connection in connections]
    for connection in connections:
        connection.close()
    assert {200, 0} >= {status_of(content) for content in ended}
