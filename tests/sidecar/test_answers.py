"""Bodies are bounded in bytes and in time, whoever sends them; answers are one message, whole."""

from __future__ import annotations

import pytest

from membudget_sidecar.serving.answers import Answer, problem, text_answer
from membudget_sidecar.serving.http_exchange import MAX_PIECES, Asked, HttpExchange
from membudget_sidecar.serving.routing import Request, Route, Routes
from sidecar.exchanged import DATE, parsed

HEAD = b"POST /ten HTTP/1.1\r\nHost: here\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def counted() -> list[str]:
    """The reasons that the route was told of."""
    return []


@pytest.fixture
def exchange(counted: list[str]) -> HttpExchange:
    """Of a route that takes ten bytes."""

    def echo(request: Request) -> Answer:
        return text_answer(200, request.body.decode())

    return HttpExchange(Routes([Route("POST", "/ten", echo, most_bytes=10, count=counted.append)]), None)


def body_of(said: Asked | Answer | None) -> bytes:
    """The body of a request that is whole."""
    assert isinstance(said, Asked)
    return said.request.body


def test_a_body_is_put_together_from_its_parts(exchange: HttpExchange) -> None:
    """R-S10: up to the bound, and not a byte less."""
    said = [exchange.receive(HEAD + b"Content-Length: 10\r\n\r\n"), exchange.receive(b"01234")]
    assert [None, None] == said
    assert b"0123456789" == body_of(exchange.receive(b"56789"))


def test_chunks_are_put_together(exchange: HttpExchange) -> None:
    """R-S10: whatever way they are cut on the wire."""
    wire = CHUNKED + b"5\r\n01234\r\n5;x=y\r\n56789\r\n0\r\nTrailer: ignored\r\n\r\n"
    said = [exchange.receive(bytes([byte])) for byte in wire]
    assert [None] * (len(wire) - 1) == said[:-1]
    assert b"0123456789" == body_of(said[-1])


def test_a_body_that_is_too_large_is_read_no_further_than_that_shows(
    exchange: HttpExchange, counted: list[str]
) -> None:
    """Fault 107: a sender without an end is not waited for, and its route is told."""
    exchange.receive(CHUNKED + b"5\r\n01234\r\n")
    said = exchange.receive(b"6\r\n56789x\r\n")
    assert isinstance(said, Answer)
    assert (413, ["TooLarge"]) == (said.status, counted)


def test_a_body_in_too_many_pieces_is_given_up() -> None:
    """Fault 107: a million chunks of one byte cost a million turns of the parser."""
    routes = Routes([Route("POST", "/ten", lambda _request: text_answer(200, ""))])
    exchange = HttpExchange(routes, None)
    exchange.receive(CHUNKED)
    said = [exchange.receive(b"1\r\nx\r\n") for _ in range(MAX_PIECES + 1)]
    assert [None] * MAX_PIECES == said[:-1]
    assert isinstance(said[-1], Answer)
    assert 413 == said[-1].status


def test_a_sender_that_goes_away_is_no_defect(exchange: HttpExchange) -> None:
    """Fault 113: 400 to nobody, and no traceback."""
    exchange.receive(HEAD + b"Content-Length: 10\r\n\r\n0")
    said = exchange.receive(b"")
    assert isinstance(said, Answer)
    assert 400 == said.status


def test_a_peer_that_never_asked_is_told_apart(exchange: HttpExchange) -> None:
    """Fault 113: there is nobody to answer."""
    with pytest.raises(EOFError):
        exchange.receive(b"")


def test_an_answer_says_its_length_and_that_it_is_the_last(exchange: HttpExchange) -> None:
    """R-S09: one request for each connection."""
    exchange.receive(HEAD + b"Content-Length: 0\r\n\r\n")
    answered = parsed(exchange.bytes_of(problem(503, "Busy", "come again", {"Retry-After": "1"}), DATE))
    expected = {
        "content-type": "application/problem+json",
        "content-length": str(len(answered.body)),
        "connection": "close",
        "date": DATE,
        "retry-after": "1",
    }
    assert (503, expected) == (answered.status, answered.headers)


@pytest.mark.parametrize("path", [b"/ten", b"/nothing"])
def test_what_is_refused_to_head_has_no_body_either(exchange: HttpExchange, path: bytes) -> None:
    """R-S09: its length is said all the same."""
    said = exchange.receive(b"HEAD " + path + b" HTTP/1.1\r\nHost: here\r\n\r\n")
    assert isinstance(said, Answer)
    head, _, body = exchange.bytes_of(said, DATE).partition(b"\r\n\r\n")
    assert (True, b"") == (f"Content-Length: {len(said.body)}".encode() in head, body)
