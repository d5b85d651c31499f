"""Sessions, source files and their history over HTTP.

Covers: routes and messages. Does not cover what is kept (`caches`) nor searching (`search_api`). Conversations are in
memory whole, and the loop answers them itself; whatever reads a file or asks git runs in a worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from membudget_engine.caches.conversation import Session, Turn
from membudget_engine.caches.history_cache import FileHistory
from membudget_engine.catalog import Catalog
from membudget_engine.errors import SessionMissing
from membudget_engine.http_answers import json, message
from membudget_engine.http_operations import COLLECTION, TEXT, Operation
from membudget_engine.rooms import Rooms
from membudget_engine.search_api import SearchApi

SESSION: Final = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
"""An id, as it is given to whoever starts a conversation."""


class RoomsApi:
    """Routes to the rooms of an engine; what reads files runs in the workers of its search API."""

    def __init__(self, rooms: Rooms, catalog: Catalog, search_api: SearchApi) -> None:
        self._rooms = rooms
        self._catalog = catalog
        self._search_api = search_api
        self.operations = tuple(self._operations())

    def _operations(self) -> Iterator[Operation]:
        session, of_a_file = "/v1/sessions/{session}", {"collection": COLLECTION}
        yield Operation(
            "POST",
            "/v1/sessions",
            self._start,
            "start a conversation",
            Session,
            HTTPStatus.CREATED,
            refusals=(429, 503),
        )
        named = {"session": SESSION}
        yield Operation("GET", session, self._session, "a conversation", Session, refusals=(404, 503), names=named)
        yield Operation(
            "DELETE",
            session,
            self._end,
            "end a conversation",
            None,
            HTTPStatus.NO_CONTENT,
            refusals=(404,),
            names=named,
        )
        yield Operation(
            "POST",
            f"{session}/turns",
            self._add_turn,
            "go on with a conversation",
            Session,
            takes=Turn,
            refusals=(400, 404, 413, 429, 503),
            names=named,
        )
        yield Operation(
            "GET",
            "/v1/files/{collection}/{path:path}",
            self._file,
            "a source file, where its tree is served",
            TEXT,
            refusals=(404, 503),
            names=of_a_file,
        )
        yield Operation(
            "GET",
            "/v1/history/{collection}/{path:path}",
            self._history,
            "the commits of a source file",
            FileHistory,
            refusals=(404, 503),
            names=of_a_file,
        )

    async def _start(self, _request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        return json(msgspec.json.encode(self._rooms.sessions.start()), HTTPStatus.CREATED)

    async def _session(self, request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        return json(self._rooms.sessions.get(request.path_params["session"]))

    async def _end(self, request: Request) -> Response:
        # Not refused while the engine stops: what gives memory back always works.
        if not self._rooms.sessions.end(request.path_params["session"]):
            raise SessionMissing("no such session: it has ended")
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _add_turn(self, request: Request) -> Response:
        self._search_api.refuse_while_stopping()
        turn = await message(request, Turn, "turn")
        return json(self._rooms.sessions.add(request.path_params["session"], turn))

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
