"""Peers of the engine's port that keep to no rule: slow, greedy, half gone. Others are answered all the while.

What a body may be stands in `test_search_api.py`, `test_write_api.py` and `test_openapi.py`; the sidecar's faces have
`tests/sidecar/test_http_faults.py`.
"""

import resource
import socket
from contextlib import ExitStack

import pytest

from engine.engine_process import EngineProcess, search_body, status_bytes

SLOW = 1_000
GROWTH_BYTES = 16 * 1024 * 1024
KNOWN = search_body("parse json")
SEARCH = b"POST /v1/search HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(KNOWN)


def _connect(engine: EngineProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", engine.port), timeout=30.0)


def _received(connection: socket.socket) -> bytes:
    """Until the other side closes, or breaks off."""
    content = b""
    try:
        while piece := connection.recv(1 << 16):
            content += piece
    except ConnectionResetError:
        pass
    return content


def _sent(engine: EngineProcess, *pieces: bytes, half_close: bool = False) -> bytes:
    with _connect(engine) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was closed in the middle
        return _received(connection)


def test_a_thousand_connections_that_never_end_their_headers_keep_nobody_out(engine: EngineProcess) -> None:
    """Fault 111: health and queries are answered beside them; what they hold is bounded and comes back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * SLOW:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * SLOW), hard))
    before = status_bytes(engine.process.pid, "RssAnon")
    with ExitStack() as slow:
        for _ in range(SLOW):
            slow.enter_context(_connect(engine)).sendall(SEARCH + b"X-Slow: ")
        assert engine.ask("GET", "/healthz").status == 200
        assert engine.ask("POST", "/v1/search", KNOWN).status == 200
        assert status_bytes(engine.process.pid, "RssAnon") - before < GROWTH_BYTES
    assert engine.ask("GET", "/healthz").status == 200


def test_a_hundred_thousand_chunks_of_one_byte_are_refused_where_the_bound_is(engine: EngineProcess) -> None:
    """Fault 107: read no further than 64 kB, whatever is still to come."""
    head = SEARCH + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    before = status_bytes(engine.process.pid, "RssAnon")
    answer = _sent(engine, head, *([b"1\r\n \r\n" * 1_000] * 100), b"0\r\n\r\n")
    assert answer[:12] in {b"HTTP/1.1 413", b""}
    assert status_bytes(engine.process.pid, "RssAnon") - before < GROWTH_BYTES
    assert engine.ask("POST", "/v1/search", KNOWN).status == 200


@pytest.mark.parametrize(
    "header",
    [b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Type: multipart/form-data; boundary=x"],
)
def test_what_is_not_plain_json_is_refused_unread(engine: EngineProcess, header: bytes) -> None:
    """Fault 108: nothing is unpacked, so nothing can be a bomb."""
    body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + bytes(100)
    request = b"POST /v1/search HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n%s\r\nContent-Length: %d\r\n\r\n"
    answer = _sent(engine, request % (header, len(body)) + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"Invalid"' in answer


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)),
        b"X: " + b"x" * 1_000_000 + b"\r\n",
        b"X: folded\r\n line\r\nContent-Length: -5\r\n",
    ],
    ids=["ten thousand", "a megabyte", "no length"],
)
def test_headers_that_are_too_many_too_large_or_of_no_meaning_are_refused(
    engine: EngineProcess, headers: bytes
) -> None:
    """Fault 110: a 4xx or the end of the connection; nothing behind them is taken for a request."""
    smuggled = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: engine\r\n\r\n"
    answer = _sent(engine, SEARCH + headers + b"\r\n", smuggled, half_close=True)
    assert answer[:10] in {b"HTTP/1.1 4", b""}
    assert b"membudget_engine" not in answer
    assert engine.ask("GET", "/healthz").status == 200


def test_of_two_lengths_the_chunked_one_counts(engine: EngineProcess) -> None:
    """Fault 110: as RFC 9112 has it (6.3); the bytes behind the last chunk are the next request and no other."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(KNOWN), KNOWN)
    last = b"GET /healthz HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
    answer = _sent(engine, SEARCH + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + body + last)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"]


def test_requests_in_one_piece_are_answered_in_order(engine: EngineProcess) -> None:
    """Fault 113: three of them before the first answer."""
    chunk = b"GET /v1/chunks/small/none HTTP/1.1\r\nHost: engine\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
    answer = _sent(engine, SEARCH + LENGTH + KNOWN + chunk + last)
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"]


def test_a_peer_that_waits_to_be_told_to_continue_is_told(engine: EngineProcess) -> None:
    """Fault 113: and one that never goes on afterwards holds up nobody."""
    with _connect(engine) as connection, _connect(engine) as stalled:
        for each in (connection, stalled):
            each.sendall(SEARCH + b"Expect: 100-continue\r\nConnection: close\r\n" + LENGTH)
            assert each.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        connection.sendall(KNOWN)
        assert _received(connection).startswith(b"HTTP/1.1 200 ")
    assert engine.ask("GET", "/healthz").status == 200


def test_a_body_that_ends_early_is_no_request(engine: EngineProcess) -> None:
    """Fault 113: the sending side is closed in the middle of it."""
    answer = _sent(engine, SEARCH + LENGTH + KNOWN[:-5], half_close=True)
    assert answer[:10] in {b"HTTP/1.1 4", b""}
    assert engine.ask("POST", "/v1/search", KNOWN).status == 200


def test_ids_without_end_make_no_series(engine: EngineProcess) -> None:
    """Fault 115: chunks and collections that are asked for name no metric."""
    for number in range(300):
        engine.ask("GET", f"/v1/chunks/small/%22%0a{'x' * 200}{number}")
        engine.ask("POST", "/v1/search", search_body("x", collection=f'"\n{number}'))
    lines = [line for line in engine.ask("GET", "/metrics").body.splitlines() if line and not line.startswith(b"#")]
    assert 0 < len(lines) < 500
