"""The OpenAPI document of the engine's HTTP side, made from the table that serves it.

Covers: OpenAPI 3.1 from operations and their types. Pure, so the committed document (`docs/api/engine.openapi.json`)
and the served one cannot differ. Does not serve (`search_api`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from membudget_contract import CONTRACT_VERSION
from membudget_contract.control_api import Problem
from membudget_engine.http_answers import RETRIABLE
from membudget_engine.http_operations import TEXT, Operation, Parameter

PATH: Final = "/openapi.json"

_REASONS: Final = {
    400: "The request cannot be understood, or asks for what cannot be.",
    404: "Nothing of that name.",
    408: "The body stood still or took too long; what was acknowledged holds.",
    409: "Not by this engine, not now, or not what was begun.",
    413: "More than is taken at once.",
    429: "No room now; come again after Retry-After seconds.",
    502: "The embedding server refused, or answered what is no vector of this engine.",
    503: "Not now, or not by this engine; come again after Retry-After seconds.",
}
_NAME: Final = re.compile(r"{(\w+)(:path)?}")
_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document; what it describes is served as it stands in there."""
    operations = tuple(operations)
    types = [Problem, *(kind for each in operations for kind in (each.answers, each.takes) if _is_type(kind))]
    unique = list({repr(kind): kind for kind in types}.values())
    found, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema_of = {repr(kind): schema for kind, schema in zip(unique, found, strict=True)}
    paths: dict[str, Any] = {}
    for each in operations:
        paths.setdefault(_NAME.sub(r"{\1}", each.path), {})[each.method.lower()] = _described(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "membudget engine",
            "version": CONTRACT_VERSION,
            "description": "Searching, writing and ingesting. Each GET answers HEAD too. Refusals are problem+json "
            "(RFC 9457) with a `reason` for programs; those that may be tried again carry Retry-After.",
        },
        "servers": [{"url": "http://localhost:8080", "description": "as `membudget-engine serve` begins by itself"}],
        "paths": paths,
        "components": {"schemas": {name: components[name] for name in sorted(components)}},
    }


def _is_type(kind: Any) -> bool:
    return kind is not None and not isinstance(kind, str)


def _described(operation: Operation, schema_of: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    responses = {str(operation.status): _answer(operation.answers, schema_of)}
    for status in sorted(operation.refusals):
        refused: dict[str, Any] = _content(_REASONS[status], "application/problem+json", schema_of[repr(Problem)])
        responses[str(status)] = refused | ({"headers": _RETRY} if status in RETRIABLE else {})
    described: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "parameters": [*_names(operation), *map(_parameter, operation.parameters)],
        "responses": responses,
    }
    if isinstance(operation.takes, str):
        described["requestBody"] = {"required": True, "content": {operation.takes: {}}}
    elif operation.takes is not None:
        content = {"application/json": {"schema": schema_of[repr(operation.takes)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _answer(answers: Any, schema_of: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if answers is None:
        return {"description": "Done."}
    if answers == TEXT:
        return _content("As asked.", TEXT, {"type": "string"})
    return _content("As asked.", "application/json", schema_of[repr(answers)])


def _content(description: str, media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _operation_id(operation: Operation) -> str:
    words = re.findall(r"[A-Za-z]+", _NAME.sub("", operation.path).removeprefix("/v1"))
    one = "One" if operation.path.endswith("}") else ""
    return operation.method.lower() + "".join(word.capitalize() for word in words) + one


def _names(operation: Operation) -> list[dict[str, Any]]:
    given = operation.names or {}
    return [
        {"name": name, "in": "path", "required": True, "schema": given.get(name, {"type": "string", "minLength": 1})}
        for name, _ in _NAME.findall(operation.path)
    ]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.summary,
        "schema": parameter.schema,
    }
