"""Vectors from a real server of `/v1/embeddings`: right ones taken, all others refused, and nothing waited for long."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from engine.embedding_server import DIMENSION, Answer, EmbeddingServerFake, numbers, right, rows
from membudget_engine.__main__ import main
from membudget_engine.errors import EmbedderUnavailable, EmbeddingInvalid
from membudget_engine.http_embedder import BATCH_TEXTS, HttpEmbedder
from membudget_engine.settings import EmbeddingServer

NUMBER = b"0.123456789012345678, "


@pytest.fixture
def server() -> Iterator[EmbeddingServerFake]:
    """Answers rightly until told otherwise."""
    with EmbeddingServerFake() as fake:
        yield fake


def embedder_of(server: EmbeddingServerFake, *, key: str | None = None, timeout_seconds: float = 10.0) -> HttpEmbedder:
    """Without pauses."""
    found = EmbeddingServer(server.url, "mini", DIMENSION, key)
    return HttpEmbedder(found, timeout_seconds=timeout_seconds, pause=lambda _: None)


def test_each_text_gets_its_own_vector_of_length_1(server: EmbeddingServerFake) -> None:
    """R-E03: whatever the order of the answer."""
    found = embedder_of(server, key="secret").embed(["one", "two", "three"])

    expected = np.array([numbers(text) for text in ("one", "two", "three")])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(expected, found, rtol=1e-6)
    assert (np.float32, (3, DIMENSION)) == (found.dtype, found.shape)
    asked = {"path": "/v1/embeddings", "model": "mini", "input": ["one", "two", "three"], "encoding_format": "float"}
    assert [asked] == server.asked
    assert ["Bearer secret"] == server.keys


def test_many_texts_are_asked_for_in_batches(server: EmbeddingServerFake) -> None:
    """R-E04: of a hundred; a text of spaces is not asked for, and none asks nobody."""
    embedder = embedder_of(server)
    texts = [f"text {number}" for number in range(2 * BATCH_TEXTS + 1)]

    found = embedder.embed([*texts, "  "])

    assert [BATCH_TEXTS, BATCH_TEXTS, 1] == [len(asked["input"]) for asked in server.asked]
    assert not found[-1].any()
    assert found[:-1].any(axis=1).all()
    assert (0, DIMENSION) == embedder.embed([]).shape
    assert len(server.asked) == 3
    assert [None] * 3 == server.keys


def test_its_name_is_the_models_wherever_it_is_served(server: EmbeddingServerFake) -> None:
    """R-E01: a generation holds it, and vectors of two models cannot be compared."""
    embedder = embedder_of(server)

    assert (f"http-mini-{DIMENSION}", DIMENSION) == (embedder.name, embedder.dimension)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: EmbeddingServerFake, status: int) -> None:
    """R-E21: twice, then it is an error that says to come back."""
    failures = iter([status, status])
    server.answer = lambda fake, texts: (failed, b"later") if (failed := next(failures, 0)) else right(fake, texts)
    assert embedder_of(server).embed(["text"]).any()
    assert len(server.asked) == 3

    server.answer = lambda _fake, _texts: (status, b"overloaded")
    with pytest.raises(EmbedderUnavailable, match=rf"answered {status}: overloaded"):
        embedder_of(server).embed(["text"])
    assert len(server.asked) == 6


def changed(**fields: object) -> Answer:
    """The right answer, but for these fields of its first row; a field of None is left out."""

    def answer(_server: EmbeddingServerFake, texts: list[str]) -> tuple[int, bytes]:
        first, *others = rows(texts)
        row = {name: value for name, value in {**first, **fields}.items() if value is not None}
        return 200, json.dumps({"data": [row, *others]}).encode()

    return answer


def exactly(body: bytes, status: int = 200) -> Answer:
    """This, whatever was asked."""
    return lambda _server, _texts: (status, body)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (changed(embedding=[1.0] * (DIMENSION - 1)), "answered 7 dimensions, not 8"),
        (changed(embedding=[]), "answered 0 dimensions, not 8"),
        (changed(embedding=None), "no list of embeddings"),
        (changed(embedding="AAAA"), "no list of embeddings"),
        (changed(embedding=[float("nan")] * DIMENSION), "no list of embeddings"),
        (changed(embedding=[float("inf")] * DIMENSION), "no list of embeddings"),
        (changed(embedding=[1e39] * DIMENSION), "no float32 can hold"),
        (changed(index=0), "not one for each"),
        (changed(index=7), "not one for each"),
        (changed(index=-1), "not one for each"),
        (exactly(b'{"data": []}'), "0 embeddings for 2 texts"),
        (exactly(b"{}"), "no list of embeddings"),
        (exactly(b""), "no list of embeddings"),
        (exactly(b"<html>"), "no list of embeddings"),
        (exactly(b"[" * 100_000), "more than|no list"),
        (exactly(b'{"data": [' + NUMBER * 20_000 + b"]}"), "more than 66048 bytes"),
        (exactly(b"moved", 302), "answered 302: moved"),
        (exactly(b"no key", 401), "answered 401: no key"),
        (exactly(b"too long", 400), "answered 400: too long"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    server: EmbeddingServerFake, answer: Answer, why: str
) -> None:
    """R-E03: and not asked for again: it would be the same."""
    server.answer = answer

    with pytest.raises(EmbeddingInvalid, match=why):
        embedder_of(server).embed(["one", "two"])

    assert len(server.asked) == 1


def test_an_answer_that_drips_in_ends_with_the_time_it_has(server: EmbeddingServerFake) -> None:
    """R-E21: a byte every 50 ms keeps no query worker."""
    server.drip_seconds = 0.05
    started = time.monotonic()

    with pytest.raises(EmbedderUnavailable, match=r"did not answer within 0\.3 s"):
        embedder_of(server, timeout_seconds=0.3).embed(["text"])

    assert time.monotonic() - started < 5


def test_a_server_that_says_nothing_ends_with_the_time_it_has() -> None:
    """R-E21: it accepts, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = EmbeddingServer(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "mini", DIMENSION)

        with pytest.raises(EmbedderUnavailable, match=r"did not answer within 0\.2 s"):
            HttpEmbedder(server, timeout_seconds=0.2).embed(["text"])


def test_a_server_that_is_not_there_is_told() -> None:
    """R-E21: at once."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/v1"

    with pytest.raises(EmbedderUnavailable, match="ConnectionRefusedError"):
        HttpEmbedder(EmbeddingServer(url, "mini", DIMENSION), pause=lambda _: None).embed(["text"])


def test_a_server_that_hangs_up_is_tried_again() -> None:
    """R-E21: three times in all."""
    met: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            for number in range(3):
                connection, _ = rude.accept()
                met.append(number)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        server = EmbeddingServer(f"http://127.0.0.1:{rude.getsockname()[1]}/v1", "mini", DIMENSION)
        with pytest.raises(EmbedderUnavailable):
            HttpEmbedder(server, pause=lambda _: None).embed(["text"])
        thread.join()

    assert [0, 1, 2] == met


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://host/v1", "http://", "http://host/v1?key=1"])
def test_what_is_no_url_of_a_server_is_refused_at_start(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """R-E01: before anything is built or served, as a wrong argument."""
    arguments = ["build", "--data", "/nowhere", "--source", "stdlib", "--embedder", url]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--embedder-model", "mini", "--embedder-dimension", "8"])

    assert "is no embedding server" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--embedder-model", "mini"], ["--embedder-dimension", "8"]])
def test_a_server_comes_with_its_model_and_its_dimension(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """R-E01: nothing is asked at start, so nothing tells them."""
    with pytest.raises(SystemExit, match="2"):
        main(["build", "--data", "/nowhere", "--source", "stdlib", "--embedder", "http://host/v1", *more])

    assert "needs a model and its dimension" in capsys.readouterr().err


def test_no_thread_stays_behind(server: EmbeddingServerFake) -> None:
    """R-E18: the clock of a request ends with it."""
    before = threading.active_count()
    embedder = embedder_of(server)
    for number in range(20):
        embedder.embed([f"text {number}"])
    started = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]

    assert [] == started
    assert threading.active_count() <= before + 1
