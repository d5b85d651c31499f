"""A page for people: the engine's memory drawn in a browser, from the same operations that everybody asks.

Covers: the three files of the page, with the headers that keep it to itself: it loads nothing from elsewhere, is shown
in no frame and runs no script but its own. Does not cover what it shows: `page/status.js` asks the local API.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from membudget_sidecar.serving.answers import Answer
from membudget_sidecar.serving.routing import Request, Route

_FOLDER: Final = Path(__file__).parent / "page"
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> tuple[Route, ...]:
    """The page and its two files; read when asked for, since most sidecars never are."""
    return tuple(Route("GET", path, _handler(name, kind), waits=True) for path, (name, kind) in _FILES.items())


def _handler(name: str, kind: str) -> Callable[[Request], Answer]:
    def handler(_request: Request) -> Answer:
        return Answer(200, (_FOLDER / name).read_bytes(), kind, _HEADERS)

    return handler
