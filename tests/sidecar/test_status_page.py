"""The page for people: by its bytes, and drawn by a real browser beside a real sidecar."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Generator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from sidecar.fake_engine import MIB, FakeEngine, eventually
from sidecar.hand_driven import policy_text
from sidecar.sidecar_process import Started

SECONDS: Final = 60.0
HOSTILE: Final = "<img src=x onerror=\"document.title='taken'\">"


class Page:
    """A sidecar that serves the page on loopback, beside an engine that holds 20 MiB."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        (folder / "policy.yaml").write_text(policy_text())
        self.engine = FakeEngine(folder).start()
        self.engine.hold_managed(20 * MIB)
        self.sidecar = Started(folder, "--policy", str(folder / "policy.yaml"), "--api-port", str(self.port))
        self.sidecar.until(engine="Connected", policy="by-hand")

    def get(self, path: str) -> http.client.HTTPResponse:
        """One file of it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Generator[Page]:
    """Looked at by all tests here."""
    made = Page(tmp_path_factory.mktemp("page"))
    yield made
    made.sidecar.end()
    made.engine.kill()


class _Loaded(HTMLParser):
    """What a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"link", "script", "img", "iframe", "object"}:
            self.found += [value or "" for name, value in attrs if name in {"src", "href", "data"}]


def test_it_loads_nothing_from_elsewhere_and_allows_nothing_else(page: Page) -> None:
    """Its two files, by name; the policy of the page would stop anything more."""
    answer = page.get("/")
    parser = _Loaded()
    parser.feed(answer.read().decode())
    assert ["status.css", "status.js"] == parser.found
    assert (answer.headers["Content-Security-Policy"] or "").startswith("default-src 'none'; script-src 'self';")
    for name in parser.found:
        content = page.get(f"/{name}").read().decode()
        assert [] == [
            address for address in re.findall(r"https?://[^\s\"']+", content) if "www.w3.org/2000/svg" not in address
        ]


def test_a_foreign_host_name_gets_no_page(page: Page) -> None:
    """A name that resolves to 127.0.0.1 would let another page read this one."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=5)
    connection.request("GET", "/", headers={"Host": "elsewhere.example"})
    assert 403 == connection.getresponse().status


def test_a_browser_draws_usage_components_owners_and_actions(page: Page, tmp_path: Path) -> None:
    """Real figures after the script ran; what others wrote stays text."""
    body = {"kind": "Evict", "targetBytes": 4 * MIB, "description": HOSTILE}
    number = page.sidecar.ask("POST", "/v1/actions", body)[1]["id"]
    eventually(lambda: page.sidecar.ask("GET", f"/v1/actions/{number}")[1]["finishedAt"] is not None, "it ended")
    drawn = browse(tmp_path, "--dump-dom", "--virtual-time-budget=5000", f"http://127.0.0.1:{page.port}/")
    text = re.sub(r"<[^>]+>", " ", drawn)
    expected = [
        "by-hand · Enforce · engine Connected",
        "of 100.0 MiB",
        "semanticCache",
        "Unmanaged",
        "Evict",
        "Effective",
    ]
    assert [] == [wanted for wanted in expected if wanted not in text], text
    assert ("<title>membudget</title>" in drawn, "<img" in drawn, "&lt;img src=x" in drawn) == (True, False, True)
    assert re.search(r'<polyline class="trace" points="[0-9., ]{20,}"', drawn)
    assert '<p id="trouble" role="alert" hidden=""></p>' in drawn


def test_a_browser_says_so_when_the_sidecar_is_gone(tmp_path: Path) -> None:
    """What was drawn is older, and the page says since when."""
    made = Page(tmp_path)
    saved = {name: made.get(f"/{name}").read() for name in ("", "status.css", "status.js")}
    made.sidecar.end()
    made.engine.kill()
    for name, content in saved.items():
        (tmp_path / (name or "index.html")).write_bytes(content)
    drawn = browse(
        tmp_path,
        "--dump-dom",
        "--virtual-time-budget=3000",
        "--allow-file-access-from-files",
        (tmp_path / "index.html").as_uri(),
    )
    assert re.search(
        r'<p id="trouble" role="alert">No answer since \d\d:\d\d:\d\d: .+ What stands below is older.', drawn
    )


def browse(folder: Path, *arguments: str) -> str:
    """What a headless Chromium writes; skips without one, and fails then under REQUIRE_BROWSER=1."""
    browser = shutil.which("chromium")
    if browser is None:
        need = "no chromium on the PATH. On Debian: apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(f"REQUIRE_BROWSER=1, but {need}")
        pytest.skip(need)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=SECONDS, check=True)
    return ran.stdout
