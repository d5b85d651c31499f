"""JSON schemas for kubeconform, from what a real API server says about its own kinds.

Covers: one strict schema for each kind of the asked API versions, under the file names that kubeconform looks for. What
the API server itself says to an object is stronger (`test_chart_manifests` asks it too); these say it without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from cluster.api_requests import ApiRequests

LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
"""Below the folder, in kubeconform's words."""
_KINDS = "x-kubernetes-group-version-kind"
_OPEN = "x-kubernetes-preserve-unknown-fields"


def write_schemas(api: ApiRequests, versions: Iterable[str], folder: Path) -> int:
    """For these values of `apiVersion`; the number of kinds."""
    served = api.send_json("GET", "/openapi/v3")["paths"]
    count = 0
    for version in sorted(set(versions)):
        path = f"apis/{version}" if "/" in version else f"api/{version}"
        schemas = api.send_json("GET", served[path]["serverRelativeURL"])["components"]["schemas"]
        strict = {name: _strict(schema) for name, schema in schemas.items()}
        for name, schema in schemas.items():
            for kind in schema.get(_KINDS, []):
                if "/".join(filter(None, (kind["group"], kind["version"]))) != version:
                    continue
                whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": strict}}
                (folder / _file(**kind)).write_text(json.dumps(whole))
                count += 1
    return count


def _file(group: str, version: str, kind: str) -> str:
    suffix = "-".join(filter(None, (group.partition(".")[0], version)))
    return f"{kind.lower()}-{suffix}.json"


def _strict(schema: Any) -> Any:
    """With no other properties than those named, as the API server takes them under strict validation."""
    if isinstance(schema, list):
        return [_strict(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    schema = cast("dict[str, Any]", schema)
    inner: dict[str, Any] = {name: _strict(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and not schema.get(_OPEN):
        inner["additionalProperties"] = False
    return inner
