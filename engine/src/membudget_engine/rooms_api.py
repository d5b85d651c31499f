"""Sessions, source files and their history over HTTP.

Covers: routes and messages. Does not cover what is kept (`caches`) nor searching (`search_api`).
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from membudget_engine.caches.session_pool import Turn
from membudget_engine.catalog import Catalog
from membudget_engine.errors import SessionMissing
from membudget_engine.http_answers import json, message, typed
from membudget_engine.rooms import Rooms
from membudget_engine.search_api import SearchApi


class RoomsApi:
    """Routes to the rooms of an engine; their work runs in the workers of its search API."""

    def __init__(self, rooms: Rooms, catalog: Catalog, search_api: SearchApi) -> None:
        self._rooms = rooms
        self._catalog = catalog
        self._search_api = search_api
        self.routes = [
            Route("/v1/sessions", typed(self._start), methods=["POST"]),
            Route("/v1/sessions/{session}", typed(self._session)),
            Route("/v1/sessions/{session}", typed(self._end), methods=["DELETE"]),
            Route("/v1/sessions/{session}/turns", typed(self._add_turn), methods=["POST"]),
            Route("/v1/files/{collection}/{path:path}", typed(self._file)),
            Route("/v1/history/{collection}/{path:path}", typed(self._history)),
        ]

    async def _start(self, _request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        session = await self._search_api.in_worker(self._rooms.sessions.start)
        return json(msgspec.json.encode(session), HTTPStatus.CREATED)

    async def _session(self, request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        wanted = request.path_params["session"]
        session = await self._search_api.in_worker(lambda: self._rooms.sessions.get(wanted))
        return json(msgspec.json.encode(session))

    async def _end(self, request: Request) -> Response:
        # Here, not in a worker: what gives memory back works also while too many queries wait.
        if not self._rooms.sessions.end(request.path_params["session"]):
            raise SessionMissing("no such session: it has ended")
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _add_turn(self, request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        turn = await message(request, Turn, "turn")
        wanted = request.path_params["session"]
        session = await self._search_api.in_worker(lambda: self._rooms.sessions.add(wanted, turn))
        return json(msgspec.json.encode(session))

    async def _file(self, request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        collection, path = request.path_params["collection"], request.path_params["path"]
        text = await self._search_api.in_worker(lambda: self._rooms.files.text(collection, path))
        return Response(text, media_type="text/plain")

    async def _history(self, request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        collection, path = request.path_params["collection"], request.path_params["path"]

        def history() -> bytes:
            with self._catalog.use(collection) as opened:
                return self._rooms.histories.history(opened, path)

        return json(await self._search_api.in_worker(history))
