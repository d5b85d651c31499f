"""The paths of a structural schema, for tests that ask something of every field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]


def definition_schema(definition: Schema) -> Schema:
    """The schema of the one version that a definition has."""
    (version,) = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field by its path, as in `spec.collections[].name`, and its schema."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}", inner
        yield from fields(inner, f"{path}{name}.")
    if "items" in schema:
        yield from fields(schema["items"], f"{path.removesuffix('.')}[].")


def leaves(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """The fields that hold a value, a list or a map, and no fields of their own."""
    return ((path, inner) for path, inner in fields(schema) if "properties" not in inner)


def schemas(schema: Schema) -> Iterator[Schema]:
    """The schema and every one in it: of fields, of items, of values of a map."""
    yield schema
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for one in inner:
        if one is not None:
            yield from schemas(one)
