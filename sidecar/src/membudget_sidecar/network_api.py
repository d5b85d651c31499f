"""The sidecar's face on the pod network: metrics, probes, and in controller mode the signed order and report (R-S10).

Covers: routes and status codes. Does not cover who may order (`order_gate`), the figures (`collector`), nor what
people ask over the Unix socket (`api`). Nothing here changes anything without a signature.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from membudget_contract.orders import KEY_HEADER, MAX_ORDER_BYTES, ORDER_PATH, REPORT_PATH, SIGNATURE_HEADER
from membudget_contract.plan import Message
from membudget_sidecar.answers import json_answer, problem, read_body
from membudget_sidecar.engine_link import UNREACHABLE
from membudget_sidecar.errors import Refused
from membudget_sidecar.loop import Loop
from membudget_sidecar.order_gate import OrderGate

Signed = Callable[[str, str, bytes], Message]
"""Key id, signature, body."""


def network_api(loop: Loop, registry: CollectorRegistry, gate: OrderGate | None = None) -> Starlette:
    """What the pod network may see; orders only with a gate to check them."""

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def healthy(_request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def ready(_request: Request) -> Response:
        # Ready means able to watch: before its engine is up there is nothing to be unready about.
        watching = loop.link.state != UNREACHABLE
        return Response(f"{loop.link.state}\n", 200 if watching else 503, media_type="text/plain")

    routes = [Route("/metrics", metrics), Route("/healthz", healthy), Route("/readyz", ready)]
    if gate is not None:
        routes += [
            Route(ORDER_PATH, _signed(gate.order), methods=["POST"]),
            Route(REPORT_PATH, _signed(gate.report), methods=["POST"]),
        ]
    return Starlette(routes=routes)


def _signed(answer: Signed) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        headers = request.headers
        try:
            body = await read_body(request, MAX_ORDER_BYTES)
            # In a thread: an order is written through to the disk, and metrics must not wait for that.
            message = await run_in_threadpool(
                answer, headers.get(KEY_HEADER, ""), headers.get(SIGNATURE_HEADER, ""), body
            )
        except Refused as refused:
            again = {"Retry-After": "1"} if refused.status in {429, 503} else None
            return problem(refused.status, refused.reason, refused.detail, again)
        return json_answer(200, message)

    return answered
