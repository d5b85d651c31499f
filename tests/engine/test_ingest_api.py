"""Uploads over HTTP to a real engine: found, resumed, refused with reasons, larger than the memory they meet."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine_process import EngineProcess, Reply, ask, search_body, wait_until
from engine.test_vector_source import write_fvecs
from memory_cgroup import memory_cgroup

MB = 1024 * 1024
LARGE_MB = int(os.environ.get("MEMBUDGET_UPLOAD_MB", "200"))
"""Of the file that is larger than memory."""
KILLS = int(os.environ.get("MEMBUDGET_UPLOAD_KILLS", "2"))
EACH_RECORDS = 8_000
"""Of one upload that is killed."""
KILLS_EACH = 4
"""Of one upload: each life acknowledges some hundreds of records, and none may come to its end."""


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """With an empty data folder."""
    folder = tmp_path_factory.mktemp("uploads")
    with EngineProcess(folder / "data", folder / "engine", options=["--writer"]) as process:
        yield process.wait_until_serving()
        assert "Traceback" not in process.log


def lines(numbers: range, text: str = "text", words: int = 50) -> bytes:
    """Documents, one a line."""
    documents = ({"id": f"d{n}", "source": f"{text} {n} {'word ' * words}", "path": f"{n % 3}.md"} for n in numbers)
    return b"".join(json.dumps(one).encode() + b"\n" for one in documents)


def state(engine: EngineProcess, path: str) -> dict[str, Any]:
    """How far an upload is."""
    return engine.ask("GET", f"/v1/ingest/{path}").json()


def count(engine: EngineProcess, name: str) -> int:
    """Chunks of a collection."""
    views = engine.ask("GET", "/v1/collections").json()
    return next((view["count"] for view in views if view["name"] == name), 0)


@contextmanager
def begun(engine: EngineProcess, path: str, whole: int) -> Generator[http.client.HTTPConnection]:
    """A connection on which an upload of so many bytes has begun; whatever was not sent then is never sent."""
    connection = engine.connect()
    try:
        connection.putrequest("PUT", f"/v1/ingest/{path}")
        connection.putheader("Content-Length", str(whole))
        connection.endheaders()
        yield connection
    finally:
        connection.close()


def test_a_file_is_sent_by_curl_as_the_document_says(writer: EngineProcess, tmp_path: Path) -> None:
    """R-E16: its name is the upload's, the format and the way to ask how far it is; again it changes nothing."""
    (tmp_path / "pages.ndjson").write_bytes(lines(range(500)))
    url = f"http://127.0.0.1:{writer.port}/v1/ingest/docs/"
    argv = ["curl", "--silent", "--show-error", "--upload-file", str(tmp_path / "pages.ndjson"), url]
    expected = {"collection": "docs", "upload": "pages.ndjson", "state": "Complete", "records": 500, "filtered": 0}

    for _ in range(2):
        answered = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        assert expected == {name: answered[name] for name in expected}
        assert answered == state(writer, "docs/pages.ndjson")

    other = writer.ask("PUT", "/v1/ingest/docs/pages.ndjson", lines(range(500), "other"))
    assert (409, "UploadDiffers") == (other.status, other.json()["reason"])
    assert expected == {name: state(writer, "docs/pages.ndjson")[name] for name in expected}

    assert 500 == count(writer, "docs")
    found = writer.ask("POST", "/v1/search", search_body("text 77", collection="docs")).json()["hits"]
    assert found[0]["chunk"]["path"] == "2.md"


@pytest.mark.parametrize("name", ["rows.npy", "rows.fvecs", "rows.json"])
def test_every_format_is_taken(writer: EngineProcess, tmp_path: Path, name: str) -> None:
    """R-E16: numpy, fvecs, an array of objects with vectors; in the representation that is asked for."""
    vectors = np.eye(16, dtype=np.float32)
    file = tmp_path / name
    if name.endswith(".npy"):
        np.save(file, vectors)
    elif name.endswith(".fvecs"):
        write_fvecs(file, vectors)
    else:
        file.write_text(json.dumps([{"id": str(row), "v": vector.tolist()} for row, vector in enumerate(vectors)]))
    path = f"of-{name}/{name}?representation=Int8&key=vector%3Dv"

    assert 16 == writer.ask("PUT", f"/v1/ingest/{path}", file.read_bytes()).json()["records"]

    asked = json.dumps({"collection": f"of-{name}", "vector": vectors[5].tolist(), "hits": 1}).encode()
    (hit,) = writer.ask("POST", "/v1/search", asked).json()["hits"]
    assert ("5", 1.0) == (hit["chunk"]["id"], round(hit["score"], 1))
    (view,) = [one for one in writer.ask("GET", "/v1/collections").json() if one["name"] == f"of-{name}"]
    assert "Int8" == view["representation"]


def test_a_dropped_connection_loses_nothing_and_the_rest_begins_where_it_stands(writer: EngineProcess) -> None:
    """R-E16: progress is told while it runs; what is acknowledged is found at once; Content-Range sends the rest."""
    content = lines(range(8_000))
    with begun(writer, "cut/log.ndjson", len(content)) as connection:
        connection.send(content[: len(content) // 2])
        wait_until(lambda: writer.ask("GET", "/v1/ingest/cut/log.ndjson").status == 200)
        wait_until(lambda: state(writer, "cut/log.ndjson")["records"] > 500)
        assert "Running" == state(writer, "cut/log.ndjson")["state"]
        again = writer.ask("PUT", "/v1/ingest/cut/log.ndjson", b"")
        assert (409, "UploadRunning") == (again.status, again.json()["reason"])
    wait_until(lambda: state(writer, "cut/log.ndjson")["state"] == "Interrupted")
    told = state(writer, "cut/log.ndjson")
    assert told["problem"]
    assert content[: told["bytes"]].count(b"\n") == told["records"] <= count(writer, "cut")

    headers = {"Content-Range": f"bytes {told['bytes']}-{len(content) - 1}/{len(content)}"}
    connection = writer.connect()
    ended = ask(connection, "PUT", "/v1/ingest/cut/log.ndjson", content[told["bytes"] :], headers)
    connection.close()

    assert ("Complete", 8_000, None) == tuple(ended.json()[name] for name in ("state", "records", "problem"))
    assert 8_000 == count(writer, "cut")


def test_searches_are_answered_while_an_upload_runs(writer: EngineProcess) -> None:
    """R-E21: it has threads of its own."""
    writer.ask("PUT", "/v1/ingest/busy/first.ndjson", lines(range(200)))
    content, replies = lines(range(200, 5_000)), list[Reply]()
    upload = threading.Thread(target=lambda: replies.append(writer.ask("PUT", "/v1/ingest/busy/more.ndjson", content)))
    upload.start()
    statuses = set[int]()
    while upload.is_alive():
        statuses.add(writer.ask("POST", "/v1/search", search_body("text 12", collection="busy")).status)
    upload.join()
    assert ({200}, 200, 5_000) == (statuses, replies[0].status, count(writer, "busy"))


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "reason"),
    [
        ("docs/pages.txt", b"", {}, 400, "WriteInvalid"),
        ("docs/.hidden.json", b"", {}, 400, "WriteInvalid"),
        ("-x/a.json", b"[]", {}, 400, "WriteInvalid"),
        ("docs/a.json?colour=1", b"[]", {}, 400, "Invalid"),
        ("docs/a.json?key=colour%3Dx", b"[]", {}, 400, "Invalid"),
        ("docs/a.json?only=vector%3Dx", b"[]", {}, 400, "Invalid"),
        ("docs/a.json?representation=Small", b"[]", {}, 400, "Invalid"),
        ("docs/a.json", b"[1]", {}, 400, "SourceInvalid"),
        ("docs/a.ndjson", b'{"id": ""}', {}, 400, "WriteInvalid"),
        ("docs/a.ndjson", b'{"vector": [1, 2]}', {}, 400, "WriteInvalid"),
        ("docs/a.json", b"[]", {"Content-Range": "bytes 0-1/2"}, 400, "Invalid"),
        ("docs/a.ndjson", b"{}", {"Content-Range": "bytes */2"}, 400, "Invalid"),
        ("docs/a.ndjson", b"{}", {"Content-Range": "bytes 7-9/10"}, 409, "UploadDiffers"),
    ],
)
def test_what_cannot_be_taken_is_a_typed_refusal(
    writer: EngineProcess, path: str, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    """Fault 106-112: and nothing of it is kept."""
    writer.ask("PUT", "/v1/ingest/docs/pages.ndjson", lines(range(500)))
    connection = writer.connect()
    reply = ask(connection, "PUT", f"/v1/ingest/{path}", body, headers)
    connection.close()
    assert (status, "application/problem+json", reason) == (reply.status, reply.content_type, reply.json()["reason"])
    assert 500 == count(writer, "docs")


def test_an_upload_that_never_was_is_told_and_a_reader_takes_none(writer: EngineProcess, engine: EngineProcess) -> None:
    """R-E18: 404 and 409."""
    missing = writer.ask("GET", "/v1/ingest/docs/none.json")
    refused = engine.ask("PUT", "/v1/ingest/small/a.json", b"[]")
    assert (404, "UploadMissing") == (missing.status, missing.json()["reason"])
    assert (409, "ReadOnly") == (refused.status, refused.json()["reason"])


def test_too_many_uploads_at_once_are_refused_and_may_come_again(writer: EngineProcess) -> None:
    """R-E21: each has a thread and a batch in memory."""
    with begun(writer, "many/a.ndjson", 100), begun(writer, "many/b.ndjson", 100):
        connection = writer.connect()

        def third() -> tuple[int, str | None]:
            connection.request("PUT", "/v1/ingest/many/c.ndjson", b"")
            response = connection.getresponse()
            response.read()
            return response.status, response.headers["Retry-After"]

        wait_until(lambda: third() == (503, "1"))
        connection.close()
    wait_until(lambda: writer.ask("PUT", "/v1/ingest/many/c.ndjson", lines(range(3))).status == 200)


def test_an_engine_that_stops_ends_an_upload_with_what_it_has(tmp_path: Path) -> None:
    """R-E17: in a moment, not at the end of the body; the next life goes on."""
    data, content = tmp_path / "data", lines(range(8_000))
    with EngineProcess(data, tmp_path / "a", options=["--writer"]) as first:
        first.wait_until_serving()
        with begun(first, "docs/log.ndjson", len(content)) as connection:
            connection.send(content[: len(content) // 3])
            wait_until(lambda: count(first, "docs") > 0)
            assert 0 == first.terminate()
    with EngineProcess(data, tmp_path / "b", options=["--writer"]) as second:
        second.wait_until_serving()
        told = state(second, "docs/log.ndjson")
        assert ("Interrupted", True) == (told["state"], 0 < told["records"] <= count(second, "docs"))
        assert 8_000 == second.ask("PUT", "/v1/ingest/docs/log.ndjson", content).json()["records"]
        assert 8_000 == count(second, "docs")


def test_killed_at_any_moment_no_acknowledged_record_is_lost(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E16, fault 55: SIGKILL while a batch is written, logged, sealed or kept; sent again it is whole."""
    data = tmp_path / "data"
    lost, acknowledged = 0, [0] * -(-KILLS // KILLS_EACH)
    for kill in range(KILLS):
        number = kill // KILLS_EACH
        with EngineProcess(data, tmp_path / f"life-{kill}", options=["--writer"]) as engine:
            engine.wait_until_serving()
            lost += max(0, sum(acknowledged) - count(engine, "docs"))
            path, content = _upload(number)
            with begun(engine, path, len(content)) as connection:
                sender = threading.Thread(target=_send, args=(connection, content))
                sender.start()
                wait_until(
                    lambda before=acknowledged[number], engine=engine, path=path: _records(engine, path) > before
                )
                acknowledged[number] = _records(engine, path)
                engine.process.send_signal(signal.SIGKILL)
                engine.process.wait()
                sender.join()
    with EngineProcess(data, tmp_path / "last", options=["--writer"]) as engine:
        engine.wait_until_serving()
        lost += max(0, sum(acknowledged) - count(engine, "docs"))
        for number in range(len(acknowledged)):
            path, content = _upload(number)
            assert EACH_RECORDS == engine.ask("PUT", f"/v1/ingest/{path}", content).json()["records"]
        assert EACH_RECORDS * len(acknowledged) == count(engine, "docs")
    publish(f"{KILLS} kills during uploads, {sum(acknowledged)} records acknowledged till then, {lost} lost")
    assert 0 == lost


def _upload(number: int) -> tuple[str, bytes]:
    first = number * EACH_RECORDS
    return f"docs/log-{number}.ndjson", lines(range(first, first + EACH_RECORDS))


def _records(engine: EngineProcess, path: str) -> int:
    reply = engine.ask("GET", f"/v1/ingest/{path}")
    return reply.json()["records"] if reply.status == 200 else 0


def _send(connection: http.client.HTTPConnection, content: bytes) -> None:
    try:
        connection.send(content)
    except OSError:
        return


LIMIT = 96 * MB


@pytest.mark.cgroup
def test_a_file_of_over_twice_the_limit_is_taken_over_http(tmp_path: Path, publish: Callable[[str], None]) -> None:
    """R-E16: documents of 32 kB into an engine in a real cgroup; killed if it did not keep to it."""
    text, bytes_sent = b'{"id": "d%", "source": "text % ' + b"word " * 6_500 + b'"}\n', 0
    folder = tmp_path / "engine"
    folder.mkdir()
    argv = [sys.executable, "-m", "membudget_engine", "serve", "--writer", "--port", "0", "--data", str(tmp_path / "d")]
    argv += ["--state", str(folder / "state"), "--run", str(folder / "run")]
    environment = {**os.environ, "MEMBUDGET_TOTAL": str(LIMIT * 9 // 10), "MALLOC_ARENA_MAX": "1"}
    with memory_cgroup(LIMIT) as cgroup, (folder / "log").open("wb") as log:
        process = cgroup.run(argv, stderr=log, env=environment)
        serving = re.compile(rb"serving on 127\.0\.0\.1:(\d+)")
        wait_until(lambda: serving.search((folder / "log").read_bytes()) is not None or process.poll() is not None)
        port = serving.search((folder / "log").read_bytes())
        assert port is not None, (folder / "log").read_text()
        connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=280)

        def content() -> Iterator[bytes]:
            nonlocal bytes_sent
            number = 0
            while bytes_sent < LARGE_MB * MB:
                piece = text.replace(b"%", str(number).encode())
                number, bytes_sent = number + 1, bytes_sent + len(piece)
                yield piece

        connection.request("PUT", "/v1/ingest/docs/large.ndjson", content())
        reply = connection.getresponse()
        answered = json.loads(reply.read())
        kills, peak = cgroup.oom_kills(), cgroup.peak_usage()
        connection.close()
        assert (200, "Complete", 0) == (reply.status, answered.get("state"), kills), (
            answered,
            (folder / "log").read_text(),
        )
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(30)
    publish(
        f"{bytes_sent // MB} MB over HTTP into an engine in a cgroup of {LIMIT // MB} MB: "
        f"{answered['records']} records (peak {peak // MB} MB with page cache)"
    )
