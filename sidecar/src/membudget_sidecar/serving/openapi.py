"""The OpenAPI document of the local API, made from the table that serves it.

Covers: OpenAPI 3.1 from operations and the contract's types. Pure, so the committed document
(`docs/api/sidecar.openapi.json`) and the served one cannot differ. Does not serve (`api`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from membudget_contract import CONTRACT_VERSION
from membudget_contract.control_api import Problem
from membudget_contract.plan import Message
from membudget_sidecar.serving.operations import Operation

PATH: Final = "/openapi.json"

_REASONS: Final = {
    400: "The request cannot be understood.",
    403: "Not allowed to write here.",
    404: "Nothing of that name.",
    409: "Taken by something else.",
    413: "The body is too long.",
    415: "The body is not JSON as it is.",
    422: "It cannot hold here; the detail says why and what would.",
    503: "Not now; come again after Retry-After seconds.",
    507: "It never fits.",
}
_WRITES: Final = "POST"
_OF_WRITES: Final = (403, 413, 415)


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document; what it describes is served as it stands in there."""
    operations = tuple(operations)
    messages = [Problem, *(message for each in operations for message in (each.answers, each.takes) if message)]
    unique = tuple(dict.fromkeys(messages))
    references, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(unique, references, strict=True))
    paths: dict[str, Any] = {}
    for each in operations:
        paths.setdefault(each.route.pattern, {})[each.route.method.lower()] = _described(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "membudget sidecar, local API",
            "version": CONTRACT_VERSION,
            "description": "Over the Unix socket `sidecar.sock` in the run folder, and for reading on loopback where "
            "that was asked for. Writes come over the socket only, from the sidecar's own uid. Each GET answers HEAD "
            "too. Refusals are problem+json (RFC 9457).",
        },
        "servers": [{"url": "http://localhost", "description": "the Unix socket"}],
        "paths": paths,
        "components": {"schemas": {name: components[name] for name in sorted(components)}},
    }


def _described(operation: Operation, schema_of: dict[type[Message], dict[str, Any]]) -> dict[str, Any]:
    route = operation.route
    refusals = {400, *operation.refusals, *(_OF_WRITES if route.method == _WRITES else ())}
    if route.waits:
        refusals.add(503)
    described: dict[str, Any] = {
        "operationId": _name(operation),
        "summary": operation.summary,
        "parameters": [*_path_parameters(route.pattern), *_query_parameters(operation)],
        "responses": {
            str(route.status): _content("As asked.", "application/json", schema_of[operation.answers]),
            **{
                str(status): _content(_REASONS[status], "application/problem+json", schema_of[Problem])
                for status in sorted(refusals)
            },
        },
    }
    if operation.takes is not None:
        body = {"application/json": {"schema": schema_of[operation.takes]}}
        described["requestBody"] = {"required": True, "content": body}
    return described


def _name(operation: Operation) -> str:
    words = [word for word in operation.route.pattern.strip("/").split("/")[1:] if not word.startswith("{")]
    parameter = "One" if "{" in operation.route.pattern else ""
    return operation.route.method.lower() + "".join(word.capitalize() for word in words) + parameter


def _path_parameters(pattern: str) -> list[dict[str, Any]]:
    _, found, rest = pattern.partition("{")
    if not found:
        return []
    schema = {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}
    return [{"name": rest.partition("}")[0], "in": "path", "required": True, "schema": schema}]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": field.name, "in": "query", "required": False, "description": field.summary, "schema": field.schema}
        for field in operation.query
    ]


def _content(description: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}
