"""Writes over HTTP to a real engine: created, found, deleted, sealed; refused with reasons; 409 without --writer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.engine_process import EngineProcess, Reply, search_body
from engine.written import notes, written
from membudget_engine.stores.write_log import LOG_FILE
from membudget_engine.write_api import MAX_WRITE_BYTES


@pytest.fixture(scope="module")
def engine_that_writes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """With an empty data folder."""
    folder = tmp_path_factory.mktemp("writes")
    with EngineProcess(folder / "data", folder / "engine", options=["--writer"]) as process:
        yield process.wait_until_serving()
        assert "Traceback" not in process.log


def _upsert(engine: EngineProcess, collection: str, numbers: range, **more: Any) -> Reply:
    body = msgspec.json.encode({"chunks": notes(numbers, f"text of {collection}"), **more})
    return engine.ask("POST", f"/v1/chunks/{collection}", body)


def _best(engine: EngineProcess, collection: str, query: str) -> list[str]:
    reply = engine.ask("POST", "/v1/search", search_body(query, collection=collection))
    return [hit["chunk"]["id"] for hit in reply.json()["hits"]]


def test_what_is_written_is_found_changed_deleted_and_sealed(engine_that_writes: EngineProcess) -> None:
    """R-E18: upsert, get, search, delete, collections."""
    engine = engine_that_writes
    assert _upsert(engine, "core", range(20)).json() == {"collection": "core", "written": 20, "count": 20}
    assert _best(engine, "core", "note_7 text")[0] == "note-7"
    assert _upsert(engine, "core", range(18, 25)).json()["count"] == 25
    assert _best(engine, "core", "note_23 text")[0] == "note-23"
    assert engine.ask("DELETE", "/v1/chunks/core/note-7").json() == {"collection": "core", "deleted": 1}
    assert engine.ask("DELETE", "/v1/chunks/core/note-7").json() == {"collection": "core", "deleted": 0}
    assert engine.ask("GET", "/v1/chunks/core/note-7").status == 404
    assert "note-7" not in _best(engine, "core", "note_7 text")
    assert engine.ask("POST", "/v1/collections/core/seal").json() == {"collection": "core", "sealed": True}
    (view,) = [one for one in engine.ask("GET", "/v1/collections").json() if one["name"] == "core"]
    assert (view["generation"], view["count"], view["representation"]) == (2, 24, "Exact")
    assert _best(engine, "core", "note_23 text")[0] == "note-23"


def test_vectors_may_be_given_and_are_asked_for_by_a_vector(engine_that_writes: EngineProcess) -> None:
    """R-E18: with the bytes and the recall of the representation reported."""
    vectors = [[float(place == number) for place in range(8)] for number in range(8)]
    assert _upsert(engine_that_writes, "given", range(8), vectors=vectors, representation="Int8").status == 200

    body = msgspec.json.encode({"collection": "given", "vector": vectors[5], "hits": 1})
    (hit,) = engine_that_writes.ask("POST", "/v1/search", body).json()["hits"]
    (view,) = [one for one in engine_that_writes.ask("GET", "/v1/collections").json() if one["name"] == "given"]

    assert (hit["chunk"]["id"], round(hit["score"], 1)) == ("note-5", 1.0)
    assert (view["representation"], view["index_type"], view["recall"]) == ("Int8", "Scalar", 1.0)
    assert view["index_bytes"] < 8 * 8 * 4
    assert view["memory_bytes"] == 0
    text = engine_that_writes.ask("POST", "/v1/search", search_body("text", collection="given"))
    assert (text.status, text.json()["reason"]) == (400, "QueryInvalid")


def test_why_writes_are_refused_is_told_with_the_collections(tmp_path: Path) -> None:
    """R-E18: whoever looks learns it before he writes; what he would be answered is the same."""
    vectors = np.eye(8, dtype=np.float32)
    with written(tmp_path / "data", tmp_path / "state", background=False) as opened:
        for name in ("core", "other"):
            opened.writer.upsert(name, notes(range(8), "first"), vectors)
    (tmp_path / "data" / "core" / LOG_FILE).write_bytes(b"no log " * 1_000)
    with EngineProcess(tmp_path / "data", tmp_path / "engine", options=["--writer"]) as engine:
        engine.wait_until_serving()
        core, other = engine.ask("GET", "/v1/collections").json()
        refusal = _upsert(engine, "core", range(8), vectors=vectors.tolist())
    assert (core["count"], other["problems"]) == (8, [])
    ((concerns, reason),) = [(problem["concerns"], problem["reason"]) for problem in core["problems"]]
    assert (concerns, refusal.json()["detail"]) == ("writing", reason)
    assert "writes.sqlite: file is not a database; restore it" in reason


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "Invalid"),
        (b'{"chunks": []}', 400, "WriteInvalid"),
        (b'{"chunks": [], "colour": 1}', 400, "Invalid"),
        (b'{"chunks": [{"id": "x"}]}', 400, "Invalid"),
        (b'{"chunks": [], "representation": "Small"}', 400, "Invalid"),
        (msgspec.json.encode({"chunks": notes(range(1), "text")}).replace(b'line":1', b'line":-1'), 400, "Invalid"),
        (msgspec.json.encode({"chunks": notes(range(1), "text")}).replace(b'line":1', b'line":1e300'), 400, "Invalid"),
        (b"[" * 100_000, 400, "Invalid"),
        (b" " * (MAX_WRITE_BYTES + 1), 413, "TooLarge"),
    ],
)
def test_what_is_no_write_is_a_typed_refusal(
    engine_that_writes: EngineProcess, body: bytes, status: int, reason: str
) -> None:
    """Fault 106-109: and the engine goes on."""
    reply = engine_that_writes.ask("POST", "/v1/chunks/core", body)

    assert (reply.status, reply.content_type, reply.json()["reason"]) == (status, "application/problem+json", reason)
    assert engine_that_writes.ask("GET", "/healthz").status == 200


def test_names_that_lead_elsewhere_and_collections_that_are_not_there(engine_that_writes: EngineProcess) -> None:
    """Fault 112: no folder is made, none is left."""
    assert _upsert(engine_that_writes, "%2e%2e", range(1)).status in {400, 404}
    assert _upsert(engine_that_writes, "-x", range(1)).json()["reason"] == "WriteInvalid"
    assert engine_that_writes.ask("DELETE", "/v1/chunks/none/x").json()["reason"] == "CollectionMissing"
    assert engine_that_writes.ask("POST", "/v1/collections/none/seal").json()["reason"] == "CollectionMissing"


def test_an_engine_that_only_reads_refuses_writes_and_answers(engine: EngineProcess) -> None:
    """R-E18: 409 ReadOnly, for upsert, delete and seal."""
    replies = [
        _upsert(engine, "small", range(1)),
        engine.ask("DELETE", "/v1/chunks/small/x"),
        engine.ask("POST", "/v1/collections/small/seal"),
    ]
    assert [(409, "ReadOnly")] * 3 == [(reply.status, reply.json()["reason"]) for reply in replies]
    assert engine.search("open a stream").status == 200
