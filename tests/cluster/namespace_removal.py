"""Removes a Kubernetes namespace with all it holds, as the namespace controller would: here runs no such controller.

Without this a deleted namespace stays Terminating for ever and its objects live on, for every watch of later tests.
Finalizers on objects are not cleared: who sets one must run what removes it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from cluster.api_requests import ApiRefused, ApiRequests

_DISCOVERY = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
_AT_ONCE = "?gracePeriodSeconds=0"


def remove_namespace(api: ApiRequests, namespace: str) -> None:
    """Deletes its objects of every kind, then itself."""
    for folder in _collections(api):
        with contextlib.suppress(ApiRefused):  # a kind whose definition went away since it was listed
            api.send("DELETE", f"{folder[0]}/namespaces/{namespace}/{folder[1]}{_AT_ONCE}")
    remaining = api.send_json("DELETE", f"/api/v1/namespaces/{namespace}")
    remaining["spec"] = {"finalizers": []}
    api.send("PUT", f"/api/v1/namespaces/{namespace}/finalize", remaining)


def _collections(api: ApiRequests) -> Iterator[tuple[str, str]]:
    """Where the API server keeps each namespaced kind that can be deleted at once: group's path and plural."""
    for root in ("/api", "/apis"):
        for group in api.send_json("GET", root, headers=_DISCOVERY)["items"]:
            name = group["metadata"].get("name", "")
            version: dict[str, Any] = group["versions"][0]  # the preferred one comes first
            for resource in version["resources"]:
                if resource["scope"] == "Namespaced" and "deletecollection" in resource["verbs"]:
                    yield "/".join(filter(None, (root, name, version["version"]))), resource["resource"]
