"""The sidecar's local API on a Unix socket: what people, agents and the CLI ask.

Covers: routes, requests, typed errors as problem+json. Does not cover listening (`servers`), the figures (`status`)
nor what the pod network sees (`network_api`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from membudget_contract.errors import ContractError, QuantityInvalid
from membudget_contract.plan import plan_hash
from membudget_contract.quantities import MIB
from membudget_contract.sidecar_api import ActionKind, ActionList, ActionRequest, ConfigureRequest, PlanView
from membudget_sidecar.actions import Order
from membudget_sidecar.answers import json_answer, problem, read_body
from membudget_sidecar.errors import QueueFull, Refused
from membudget_sidecar.loop import Loop
from membudget_sidecar.order_keeper import OrderKeeper
from membudget_sidecar.status import status

MAX_BODY_BYTES: Final = 64 * 1024
MAX_DESCRIPTION: Final = 200
"""Characters; a thousand records keep theirs."""
MAX_TTL_SECONDS: Final = 86_400
MAX_ID_DIGITS: Final = 18

_WITHOUT_TARGET: Final = frozenset({ActionKind.COLLECT, ActionKind.TRIM})
_ROUTE_REASONS: Final = {404: "NotFound", 405: "MethodNotAllowed"}

Endpoint = Callable[[Request], Awaitable[Response]]


def local_api(loop: Loop, orders: OrderKeeper | None = None) -> Starlette:
    """Every route; `orders` are those held in controller mode."""
    api = _LocalApi(loop, orders)
    return Starlette(
        routes=[
            Route("/v1/status", _typed(api.get_status)),
            Route("/v1/plan", _typed(api.get_plan)),
            Route("/v1/actions", _typed(api.get_actions), methods=["GET"]),
            Route("/v1/actions", _typed(api.post_action), methods=["POST"]),
            Route("/v1/actions/{number}", _typed(api.get_action)),
            Route("/v1/configure", _typed(api.post_configure), methods=["POST"]),
            Route("/v1/reload", _typed(api.post_reload), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _no_route},
    )


class _LocalApi:
    def __init__(self, loop: Loop, orders: OrderKeeper | None) -> None:
        self._loop = loop
        self._orders = orders

    async def get_status(self, _request: Request) -> Response:
        return json_answer(200, status(self._loop, self._orders))

    async def get_plan(self, _request: Request) -> Response:
        plan = self._loop.keeper.effective
        return json_answer(200, PlanView(plan_hash=plan_hash(plan), plan=plan))

    async def get_actions(self, _request: Request) -> Response:
        return json_answer(200, ActionList(actions=tuple(self._loop.actions.records())))

    async def get_action(self, request: Request) -> Response:
        number: str = request.path_params["number"]
        known = number.isascii() and number.isdecimal() and len(number) <= MAX_ID_DIGITS
        record = self._loop.actions.record(int(number)) if known else None
        if record is None:
            raise Refused(404, "NotFound", "no such action is remembered; GET /v1/actions lists them")
        return json_answer(200, record)

    async def post_action(self, request: Request) -> Response:
        asked = msgspec.json.decode(await _body(request), type=ActionRequest)
        if asked.kind is ActionKind.RESIZE:
            raise Refused(400, "Invalid", "budgets are moved by the policy, or by POST /v1/configure for a time")
        _check_target(asked)
        if len(asked.description) > MAX_DESCRIPTION:
            raise Refused(400, "Invalid", f"description has at most {MAX_DESCRIPTION} characters")
        plan = self._loop.keeper.effective
        cause = f"asked by hand: {asked.description}" if asked.description else "asked by hand"
        record = self._loop.actions.submit(Order(asked.kind, plan, asked.target_bytes, 0, cause))
        return json_answer(202, record)

    async def post_configure(self, request: Request) -> Response:
        asked = msgspec.json.decode(await _body(request), type=ConfigureRequest)
        if not 0 <= asked.ttl_seconds <= MAX_TTL_SECONDS:
            raise Refused(400, "Invalid", f"ttlSeconds is 1 to {MAX_TTL_SECONDS}, or 0 to end what was configured")
        if asked.ttl_seconds and asked.total is None and not asked.components:
            raise Refused(400, "Invalid", "name what to tighten: total, components, or both")
        configured = self._loop.keeper.configure(asked, self._loop.watch.floor)
        self._loop.wake()
        return json_answer(200, configured)

    async def post_reload(self, _request: Request) -> Response:
        self._loop.reload()
        return json_answer(202, status(self._loop, self._orders))


def _check_target(asked: ActionRequest) -> None:
    kind, target = asked.kind, asked.target_bytes
    if target < 0:
        raise Refused(400, "Invalid", "targetBytes is how many bytes to free; it cannot be negative")
    if kind in _WITHOUT_TARGET and target:
        raise Refused(400, "Invalid", f"{kind} frees what it finds and takes no targetBytes; leave it out")
    if kind not in _WITHOUT_TARGET and not target:
        raise Refused(400, "Invalid", f'say how many bytes {kind} is to free, like "targetBytes": {10 * MIB}')


async def _no_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = _ROUTE_REASONS.get(error.status_code, "Invalid")
    detail = "GET /v1/status, /v1/plan, /v1/actions; POST /v1/actions, /v1/configure, /v1/reload"
    return problem(error.status_code, reason, detail, error.headers)


def _typed(endpoint: Endpoint) -> Endpoint:
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as refused:
            return problem(refused.status, refused.reason, refused.detail)
        except QueueFull as error:
            return problem(503, "QueueFull", str(error))
        except QuantityInvalid as error:
            return problem(400, "Invalid", str(error))
        except ContractError as error:
            return problem(422, error.reason, str(error))
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            return problem(400, "Invalid", str(error))

    return answered


async def _body(request: Request) -> bytes:
    body = await read_body(request, MAX_BODY_BYTES)
    if len(body) > MAX_BODY_BYTES:
        raise Refused(413, "TooLarge", f"a body has at most {MAX_BODY_BYTES} bytes")
    return body
