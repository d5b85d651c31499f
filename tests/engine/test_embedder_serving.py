"""An engine whose texts are embedded by a server: built, searched and written to with it, and served without it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.embedding_server import DIMENSION, EmbeddingServerFake, numbers, right
from engine.engine_process import EngineProcess
from membudget_engine.build_command import build_sources
from membudget_engine.index.generations import find_newest_generation
from membudget_engine.ingest.python_source import standard_library_root
from membudget_engine.settings import EmbeddingServer

CHUNK: dict[str, object] = {
    "id": "one", "path": "one.py", "name": "one", "kind": "function", "signature": "def one()", "docstring": "",
    "dependencies": [], "source": "def one(): return 1", "start_line": 1, "end_line": 1,
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[EmbeddingServerFake]:
    """Answers rightly until told otherwise."""
    with EmbeddingServerFake() as fake:
        yield fake


@pytest.fixture
def data(server: EmbeddingServerFake, tmp_path: Path) -> Path:
    """A data folder with `small`, the json package, embedded by the server."""
    shutil.copytree(standard_library_root() / "json", tmp_path / "source" / "json")
    found = EmbeddingServer(server.url, "mini", DIMENSION)
    build_sources(tmp_path / "data", [f"small={tmp_path / 'source'}"], embedding_server=found)
    return tmp_path / "data"


def options(server: EmbeddingServerFake) -> list[str]:
    """Of `membudget-engine serve`."""
    return ["--writer", "--embedder", server.url, "--embedder-model", "mini", "--embedder-dimension", str(DIMENSION)]


def levels(engine: EngineProcess) -> dict[str, float]:
    """The embedding cache as /metrics tells it."""
    lines = engine.ask("GET", "/metrics").body.decode().splitlines()
    told = (line.split() for line in lines if line.startswith("membudget_engine_embedding_"))
    return {name.removeprefix("membudget_engine_embedding_"): float(value) for name, value in told}


def test_a_text_is_embedded_once_also_across_a_restart(server: EmbeddingServerFake, data: Path, tmp_path: Path) -> None:
    """R-E03: the answer to each number of hits is its own, the vector of the words is not."""
    found = find_newest_generation(data / "small").found
    assert found is not None
    assert (f"http-mini-{DIMENSION}", DIMENSION) == (found.manifest.embedder, found.manifest.dimension)
    assert found.manifest.count == server.texts
    with EngineProcess(data, tmp_path / "engine", options=options(server)) as engine:
        engine.wait_until_serving()
        before = server.texts
        replies = [engine.search("decode a document", hits=hits) for hits in (3, 4, 5)]
        assert [200] * 3 == [reply.status for reply in replies]
        assert [3, 4, 5] == [len(reply.json()["hits"]) for reply in replies]
        assert server.texts == before + 1
        told = levels(engine)
        assert (1, 2) == (told['entries{level="hot"}'], told['hits_total{level="hot"}'])
        assert (1, 1) == (told['misses_total{level="hot"}'], told['misses_total{level="cold"}'])
        engine.process.terminate()
        assert engine.process.wait(timeout=30) == 0

    with EngineProcess(data, tmp_path / "engine", options=options(server)) as engine:
        engine.wait_until_serving()
        assert engine.search("decode a document", hits=6).status == 200
        assert server.texts == before + 1


def test_without_the_server_what_is_known_is_answered_and_the_rest_is_refused(
    server: EmbeddingServerFake, data: Path, tmp_path: Path
) -> None:
    """R-E21: 503 and to come back; an answer that is none is a 502; vectors are served all the time."""
    with EngineProcess(data, tmp_path / "engine", options=options(server)) as engine:
        engine.wait_until_serving()
        assert engine.search("decode a document").status == 200

        server.answer = lambda _fake, _texts: (503, b"overloaded")
        refused = engine.search("encode a document")
        assert (503, "EmbedderUnavailable") == (refused.status, refused.json()["reason"])
        assert engine.search("decode a document", hits=7).status == 200
        asked = json.dumps({"collection": "small", "vector": numbers("text")}).encode()
        assert engine.ask("POST", "/v1/search", asked).status == 200

        server.answer = lambda _fake, _texts: (200, b'{"data": []}')
        wrong = engine.search("encode a document")
        assert (502, "EmbeddingInvalid") == (wrong.status, wrong.json()["reason"])
        assert "Traceback" not in engine.log


@pytest.mark.parametrize(
    ("method", "path", "asked", "body"),
    [
        ("POST", "/v1/search", "/v1/search", {"collection": "small", "query": "encode a document"}),
        ("POST", "/v1/chunks/{collection}", "/v1/chunks/small", {"chunks": [CHUNK]}),
        ("PUT", "/v1/ingest/{collection}/{upload}", "/v1/ingest/small/pages.ndjson", {"id": "p1", "source": "text"}),
    ],
)
def test_whatever_embeds_text_tells_of_the_server_as_the_document_says(
    server: EmbeddingServerFake, data: Path, tmp_path: Path, method: str, path: str, asked: str, body: dict[str, Any]
) -> None:
    """R-E18, R-E21: 502 for what is no vector, 503 for a server that is not well; problems both, nothing written."""
    with EngineProcess(data, tmp_path / "engine", options=options(server)) as engine:
        engine.wait_until_serving()
        count = engine.ask("GET", "/v1/collections").json()[0]["count"]
        told = engine.ask("GET", "/openapi.json").json()["paths"][path][method.lower()]["responses"]
        for answer, status, reason in (
            ((200, b'{"data": []}'), 502, "EmbeddingInvalid"),
            ((401, b"no such key"), 502, "EmbeddingInvalid"),
            ((503, b"overloaded"), 503, "EmbedderUnavailable"),
        ):
            server.answer = lambda _fake, _texts, answer=answer: answer
            refused = engine.ask(method, asked, json.dumps(body).encode())
            assert (status, reason) == (refused.status, refused.json()["reason"])
            assert [refused.content_type] == [*told[str(status)]["content"]] == ["application/problem+json"]
            assert ("headers" in told[str(status)]) is (status == 503)
        assert count == engine.ask("GET", "/v1/collections").json()[0]["count"]
        server.answer = right
        assert engine.ask(method, asked, json.dumps(body).encode()).status == 200
        assert "Traceback" not in engine.log


def test_what_is_written_by_text_goes_through_the_cache(
    server: EmbeddingServerFake, data: Path, tmp_path: Path
) -> None:
    """R-E03: the same chunk again is not embedded again, and a write takes no vector of a search away."""
    body = json.dumps({"chunks": [CHUNK]}).encode()
    with EngineProcess(data, tmp_path / "engine", options=options(server)) as engine:
        engine.wait_until_serving()
        assert engine.search("decode a document").status == 200
        before = server.texts

        assert [200, 200] == [engine.ask("POST", "/v1/chunks/small", body).status for _ in range(2)]
        assert server.texts == before + 1
        # Every answer that was kept ended with the write; the vector of its words did not.
        assert engine.search("decode a document").json()["answered_by"] == "index"
        assert server.texts == before + 1


def test_a_collection_of_another_embedder_is_not_served(
    server: EmbeddingServerFake, data: Path, tmp_path: Path
) -> None:
    """R-E01: vectors of two models cannot be compared; the log says what was expected."""
    with EngineProcess(data, tmp_path / "engine") as engine:
        assert engine.process.wait(timeout=30) == 1
        assert f"made with http-mini-{DIMENSION}, this engine has hashing-384-v1" in engine.log
    assert server.texts > 0
