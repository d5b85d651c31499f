"""The sidecar's local API: what people, agents and the CLI ask over the Unix socket, and on request over loopback.

Covers: the table of all operations with its document, and who may write. Does not cover the operations themselves
(`local_status`, `local_actions`, `local_allocations`, `local_diagnostics`), listening (`servers`), how errors become
answers (`routing`) nor what the pod network sees (`network_api`).

Writes come over the Unix socket only, and only from the sidecar's own uid. Root is no exception: in a pod it is
another container's root that could reach the socket, and on a host root can become that uid, which is then on record.
"""

from __future__ import annotations

from typing import Final

import msgspec

from membudget_sidecar.errors import Refused
from membudget_sidecar.serving import openapi
from membudget_sidecar.serving.answers import Answer
from membudget_sidecar.serving.local_actions import LocalActions
from membudget_sidecar.serving.local_allocations import LocalAllocations
from membudget_sidecar.serving.local_diagnostics import LocalDiagnostics
from membudget_sidecar.serving.local_leak_detector import LocalLeakDetector
from membudget_sidecar.serving.local_status import LocalStatus, Served
from membudget_sidecar.serving.operations import Operation
from membudget_sidecar.serving.routing import Guard, Request, Route, Routes
from membudget_sidecar.serving.status_page import page_routes

_READS: Final = frozenset({"GET", "HEAD"})


def local_api(served: Served, *, own_uid: int) -> Routes:
    """What the Unix socket serves."""
    return Routes(_routes(served), _own_uid_writes(own_uid))


def loopback_api(served: Served, *, port: int) -> Routes:
    """The same routes over TCP at 127.0.0.1: for reading, and for who calls it by its own name."""
    return Routes(_routes(served), _local_names_read(port))


def _own_uid_writes(own_uid: int) -> Guard:
    def guard(head: Request) -> None:
        if head.method not in _READS and head.peer_uid != own_uid:
            detail = f"only uid {own_uid}, the sidecar's own, may write here; this is uid {head.peer_uid}"
            raise Refused(403, "NotOwnUid", detail)

    return guard


def _local_names_read(port: int) -> Guard:
    """A name that resolves to 127.0.0.1 would let a web page read this through its visitor's browser."""
    names = {f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]")}

    def guard(head: Request) -> None:
        if head.method not in _READS:
            raise Refused(403, "ReadOnly", "this port only reads; writes go over the Unix socket")
        if head.headers.get("host", "").lower() not in names:
            raise Refused(403, "ForeignHost", f"Host must be one of {', '.join(sorted(names))}")

    return guard


def operations(served: Served) -> tuple[Operation, ...]:
    """All that the local API does."""
    read = LocalStatus(served)
    return (
        *read.operations(),
        *LocalActions(served).operations(),
        *LocalAllocations(served).operations(),
        *LocalLeakDetector(served).operations(),
        *LocalDiagnostics(served, read).operations(),
    )


def _routes(served: Served) -> tuple[Route, ...]:
    known = operations(served)

    def described(_request: Request) -> Answer:
        return Answer(200, msgspec.json.encode(openapi.document(known)), "application/json")

    return (*(operation.guarded() for operation in known), Route("GET", openapi.PATH, described), *page_routes())
