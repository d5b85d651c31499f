"""Policies and pods as tests say them, through the same reading that real ones take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from membudget_controller.objects import (
    Metadata,
    ObservedPod,
    ObservedPolicy,
    PodObject,
    PolicyObject,
    pod_from,
    policy_from,
)

APP = {"matchLabels": {"app": "retriever"}}


def make_policy(
    name: str = "retrieval",
    *,
    namespace: str = "search",
    uid: str | None = None,
    version: int = 1,
    generation: int = 1,
    created: str = "2026-11-20T10:00:00Z",
    selector: object = APP,
    total: object = "100Mi",
    precedence: object = 0,
    status: object = None,
    **spec: object,
) -> ObservedPolicy:
    """One that selects app=retriever."""
    metadata = Metadata(
        namespace=namespace,
        name=name,
        uid=uid or f"uid-of-{name}",
        resource_version=str(version),
        generation=generation,
        creation_timestamp=created,
    )
    written = {"selector": selector, "budget": {"total": total}, "precedence": precedence, **spec}
    return policy_from(PolicyObject(metadata=metadata, spec=written, status=status))


def make_pod(
    name: str = "retriever-0",
    *,
    namespace: str = "search",
    uid: str | None = None,
    version: int = 1,
    labels: dict[str, str] | None = None,
    ip: str = "10.244.0.1",
    **changed: Any,
) -> ObservedPod:
    """One that opts in and runs."""
    chosen = {"app": "retriever"} if labels is None else labels
    metadata = Metadata(
        namespace=namespace,
        name=name,
        uid=uid or f"uid-of-{name}",
        resource_version=str(version),
        labels={"membudget.dev/managed": "true", **chosen},
    )
    running: dict[str, Any] = {"ip": ip, "ips": (ip,), "phase": "Running"}
    return replace(pod_from(PodObject(metadata=metadata)), **{**running, **changed})
