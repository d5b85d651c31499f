"""The OpenAPI document is true: a client made from it is answered as it says, whatever it sends."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import socket
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from openapi_cases import CHECKS, CONFORM, Document
from sidecar.hand_driven import policy_text
from sidecar.runtime_process import RuntimeProcess
from sidecar.sidecar_process import Started
from sidecar.unix_forwarder import forwarded

RENDERER = Path(__file__).parents[2] / "docs" / "api" / "render_openapi.py"
COMMITTED = RENDERER.with_name("sidecar.openapi.json")
DOCUMENT = Document(COMMITTED, 30)


@dataclass(frozen=True)
class Stack:
    """A sidecar beside a real runtime, and where it is asked."""

    sidecar: Started
    loopback: str
    socket: str


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """One for all cases: what one asks must not spoil the next."""
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "policy.yaml").write_text(policy_text("300Mi"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with RuntimeProcess(folder), contextlib.ExitStack() as ending:
        sidecar = Started(folder, "--policy", str(folder / "policy.yaml"), "--api-port", str(port))
        ending.callback(sidecar.end)
        sidecar.until(engine="Connected", policy="by-hand")
        with forwarded(folder / "sidecar.sock") as url:
            yield Stack(sidecar, f"http://127.0.0.1:{port}", url)


def test_the_committed_document_is_the_one_of_this_code() -> None:
    """R-S09: `make api-docs` renews it."""
    assert COMMITTED.read_bytes() == runpy.run_path(str(RENDERER))["rendered"]()[COMMITTED.name]


def test_the_page_for_people_lists_the_same_operations() -> None:
    """R-S09: none is missing, none is invented."""
    listed = re.findall(r"^\| `([A-Z]+ /\S+)` \|", COMMITTED.with_name("README.md").read_text(), re.MULTILINE)
    assert sorted(DOCUMENT.operations) == sorted(listed)


def test_a_sidecar_serves_the_committed_document(stack: Stack) -> None:
    """R-S09: over the socket, and over loopback for reading."""
    with urllib.request.urlopen(f"{stack.loopback}/openapi.json") as answer:
        assert DOCUMENT.text == json.loads(answer.read())
    assert (200, DOCUMENT.text) == stack.sidecar.ask("GET", "/openapi.json")


@pytest.mark.parametrize("label", DOCUMENT.operations)
def test_what_the_document_allows_is_answered_as_it_says(stack: Stack, label: str) -> None:
    """R-S09: status, media type and schema of every answer; no 5xx but a documented 503."""

    def check(case: Any) -> None:
        reads = case.method == "GET"
        answer = case.call(base_url=stack.loopback if reads else stack.socket)
        case.validate_response(answer, checks=[*CONFORM, *([CHECKS.positive_data_acceptance] if reads else [])])

    DOCUMENT.ask(label, schemathesis.GenerationMode.POSITIVE, check)


@pytest.mark.parametrize("label", DOCUMENT.taking)
def test_what_the_document_forbids_is_refused_with_a_problem(stack: Stack, label: str) -> None:
    """R-S09, fault 112: never taken for something else, never a 500."""

    def check(case: Any) -> None:
        answer = case.call(base_url=stack.socket)
        case.validate_response(answer, checks=[*CONFORM, CHECKS.negative_data_rejection])

    DOCUMENT.ask(label, schemathesis.GenerationMode.NEGATIVE, check)


def test_the_sidecar_is_well_after_all_of_it(stack: Stack) -> None:
    """R-S09: it looks, it enforces once that is started again, and its log has no defect."""
    assert 200 == stack.sidecar.ask("POST", "/v1/enforcement/start")[0]
    assert 200 == stack.sidecar.ask("POST", "/v1/configure", {"ttlSeconds": 0})[0]
    stack.sidecar.until(engine="Connected", mode="Enforce")
    assert "Traceback" not in stack.sidecar.log()
