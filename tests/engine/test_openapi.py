"""The OpenAPI document is true: a client made from it is answered as it says, whatever it sends."""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis

from engine.engine_process import EngineProcess
from engine.written import notes
from openapi_cases import CHECKS, CONFORM, Document

RENDERER = Path(__file__).parents[2] / "docs" / "api" / "render_openapi.py"
COMMITTED = RENDERER.with_name("engine.openapi.json")
DOCUMENT = Document(COMMITTED, 8)
KNOWN = {"collection": "core", "chunk": "note-1", "path": "json/__init__.py", "upload": "pages.ndjson"}
"""Of every second case: with names that nothing has, everything would be a 404."""


@pytest.fixture(scope="module")
def writer(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One for all cases, with a collection, a tree, an upload and a session; a defect would be in its log."""
    folder = tmp_path_factory.mktemp("openapi")
    shutil.copytree(small_data / "small", folder / "data" / "core")
    tree = next((small_data.parent / "source").iterdir()).parent
    with EngineProcess(folder / "data", folder / "engine", options=["--writer", f"--source=core={tree}"]) as process:
        process.wait_until_serving()
        chunks = msgspec.json.encode({"chunks": notes(range(5), "text")})
        assert 200 == process.ask("POST", "/v1/chunks/core", chunks).status
        process.ask("PUT", "/v1/ingest/core/pages.ndjson", b'{"id": "p1", "source": "text"}')
        yield process
        assert [] == [line for line in process.log.splitlines() if "Traceback" in line or " ERROR " in line]


def test_the_committed_document_is_the_one_of_this_code() -> None:
    """R-E18: `make api-docs` renews it."""
    assert COMMITTED.read_bytes() == runpy.run_path(str(RENDERER))["rendered"]()[COMMITTED.name]


def test_the_page_for_people_lists_the_same_operations() -> None:
    """R-E18: none is missing, none is invented."""
    listed = re.findall(r"^\| `([A-Z]+ /\S+)` \|", COMMITTED.with_name("engine.md").read_text(), re.MULTILINE)
    assert sorted(DOCUMENT.operations) == sorted(listed)


def test_an_engine_serves_the_committed_document(engine: EngineProcess) -> None:
    """R-E18: whether it writes or only reads."""
    assert DOCUMENT.text == engine.ask("GET", "/openapi.json").json()


def _with_known_names(case: Any, session: str) -> Any:
    """Every second case asks for what is there."""
    asked: dict[str, Any] = case.path_parameters or {}
    if sum(len(str(value)) for value in asked.values()) % 2:
        known = {**KNOWN, "session": session}
        case.path_parameters = {name: known[name] for name in asked}
    body: Any = case.body
    if case.path == "/v1/search" and "query" in body:
        body["collection"] = "core"
    return case


@pytest.fixture(scope="module")
def session(writer: EngineProcess) -> str:
    """One that is there."""
    return writer.ask("POST", "/v1/sessions").json()["id"]


@pytest.mark.parametrize("label", DOCUMENT.operations)
def test_what_the_document_allows_is_answered_as_it_says(writer: EngineProcess, session: str, label: str) -> None:
    """R-E18, R-E19: status, media type and schema of every answer; no 5xx but a documented 503."""

    def check(case: Any) -> None:
        answer = _with_known_names(case, session).call(base_url=f"http://127.0.0.1:{writer.port}")
        case.validate_response(answer, checks=CONFORM)
        if answer.status_code in {408, 429, 503}:
            assert "retry-after" in answer.headers

    DOCUMENT.ask(label, schemathesis.GenerationMode.POSITIVE, check)


@pytest.mark.parametrize("label", DOCUMENT.taking)
def test_what_the_document_forbids_is_refused_with_a_problem(writer: EngineProcess, label: str) -> None:
    """R-E18, faults 106 to 112: never taken for something else, never a 500."""

    def check(case: Any) -> None:
        answer = case.call(base_url=f"http://127.0.0.1:{writer.port}")
        case.validate_response(answer, checks=[*CONFORM, CHECKS.negative_data_rejection])

    DOCUMENT.ask(label, schemathesis.GenerationMode.NEGATIVE, check)


def test_the_engine_is_well_after_all_of_it(writer: EngineProcess) -> None:
    """R-E18: what was there is there."""
    assert 200 == writer.ask("GET", "/readyz").status
    assert 200 == writer.search("open a stream reader", collection="core").status
    assert 200 == writer.ask("GET", "/monitoring/memory").status
