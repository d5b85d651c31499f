"""The sidecar's face on the pod network: metrics, probes, and in controller mode the signed order and report (R-S10).

Covers: routes and status codes. Does not cover who may order (`order_gate`), the figures (`collector`), nor what
people ask over the Unix socket (`api`). Nothing here changes anything without a signature.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from membudget_contract.orders import KEY_HEADER, MAX_ORDER_BYTES, ORDER_PATH, REPORT_PATH, SIGNATURE_HEADER
from membudget_contract.plan import Message
from membudget_sidecar.acting.engine_link import UNREACHABLE
from membudget_sidecar.loop import Loop
from membudget_sidecar.plans.order_gate import OrderGate
from membudget_sidecar.serving.answers import Answer, text_answer
from membudget_sidecar.serving.exposition import CONTENT_TYPE, Collector, exposition
from membudget_sidecar.serving.routing import Handler, Request, Route, Routes

STUCK_SECONDS: Final = 30.0
"""Without a look, beyond the plan's interval: three questions to a frozen engine fit in, a deadlock does not."""

Signed = Callable[[str, str, bytes], Message]
"""Key id, signature, body."""


def network_api(
    loop: Loop,
    collector: Collector,
    gate: OrderGate | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Routes:
    """What the pod network may see; orders only with a gate to check them."""

    def metrics(_request: Request) -> Answer:
        return Answer(200, exposition(collector), CONTENT_TYPE)

    def healthy(_request: Request) -> Answer:
        silent = clock() - loop.looked_at
        if silent <= STUCK_SECONDS + loop.keeper.effective.sampling_interval_seconds:
            return text_answer(200, "ok\n")
        return text_answer(503, f"the loop is stuck or ended: its last look was {silent:.0f} s ago\n")

    def ready(_request: Request) -> Answer:
        # Ready means able to watch: before its engine is up there is nothing to be unready about.
        watching = loop.link.state != UNREACHABLE
        return text_answer(200 if watching else 503, f"{loop.link.state}\n")

    routes = [Route("GET", "/metrics", metrics), Route("GET", "/healthz", healthy), Route("GET", "/readyz", ready)]
    if gate is not None:
        routes += [
            Route("POST", ORDER_PATH, _signed(gate.order), most_bytes=MAX_ORDER_BYTES, waits=True, count=gate.count),
            Route("POST", REPORT_PATH, _signed(gate.report), most_bytes=MAX_ORDER_BYTES),
        ]
    return Routes(routes)


def _signed(answer: Signed) -> Handler:
    def answered(request: Request) -> Message:
        headers = request.headers
        return answer(headers.get(KEY_HEADER.lower(), ""), headers.get(SIGNATURE_HEADER.lower(), ""), request.body)

    return answered
