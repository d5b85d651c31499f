"""An operation of the engine's HTTP side: a route, and what a document has to say of it.

Covers: the table that serves requests and makes the OpenAPI document (`http_document`), so that neither can say what
the other does not. Does not cover any operation of its own (`search_api`, `write_api`, `ingest_api`, `rooms_api`,
`monitoring_api`) nor bodies and errors (`http_answers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from membudget_contract.policy import CollectionName
from membudget_engine.http_answers import Endpoint, typed

Method = Literal["GET", "POST", "PUT", "DELETE"]

TEXT: Final = "text/plain"
"""In place of a type: an answer that is text."""

COLLECTION: Final = msgspec.json.schema(CollectionName)
"""Of a name in a path."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field of the query, or a header; `schema` is its JSON schema."""

    name: str
    place: Literal["query", "header"]
    summary: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path takes and answers."""

    method: Method
    path: str
    endpoint: Endpoint
    summary: str
    answers: Any
    """The type of a JSON answer, TEXT, or None: no content."""
    status: int = 200
    takes: Any = None
    """The type of a JSON body, or the media type of one that is read as it comes."""
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[int, ...] = ()
    """A problem each."""
    names: Mapping[str, Mapping[str, Any]] | None = None
    """JSON schemas of names in the path, where they are more than text."""


def routes(operations: Iterable[Operation]) -> list[Route]:
    """One for each path, so that a wrong method is told of all that are right."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method] = typed(each.endpoint)
    return [Route(path, _by_method(endpoints), methods=list(endpoints)) for path, endpoints in paths.items()]


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return endpoint
