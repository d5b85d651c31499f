"""The engine one builds first: its index loaded, whatever it read or answered kept in dicts, nothing ever let go.

Usage: naive_engine PORT DATA NAME=TREE. The same index file, embedder, chunk store on SQLite, HTTP server and number of
workers as membudget's engine, the same answers byte for byte; what differs is how memory is held. It serves what a
profile's agents ask for: searches, source files, conversations. Not for use.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from membudget_contract.decoding import decode_json
from membudget_engine.settings import limit_thread_pools, query_workers

limit_thread_pools(1)  # before numpy, as the engine does

import msgspec  # noqa: E402
import uvicorn  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Route  # noqa: E402

from membudget_engine.caches.conversation import MOST_TURNS, Turn  # noqa: E402
from membudget_engine.collection import open_generation  # noqa: E402
from membudget_engine.embedder import HashingEmbedder, Vectors  # noqa: E402
from membudget_engine.index.generations import find_newest_generation  # noqa: E402
from membudget_engine.index.loaded import LoadedIndex  # noqa: E402
from membudget_engine.ingest.chunk import Chunk  # noqa: E402
from membudget_engine.search import Answer, AnsweredBy, Hit  # noqa: E402
from membudget_engine.search_api import SearchRequest  # noqa: E402

_SESSION_ID_BYTES: Final = 16


class NaiveEngine:
    """One collection, and dicts."""

    def __init__(self, folder: Path, tree: Path) -> None:
        found = find_newest_generation(folder).found
        if found is None:
            sys.exit(f"no good generation in {folder}")
        self._opened = open_generation(folder.name, found, LoadedIndex)
        self._tree = tree
        self._embedder = HashingEmbedder()
        self._vectors: dict[str, Vectors] = {}
        self._answers: dict[tuple[str, int], bytes] = {}
        self._chunks: dict[int, Chunk] = {}
        self._files: dict[str, str] = {}
        self._sessions: defaultdict[str, list[Turn]] = defaultdict(list)

    def answer(self, asked: SearchRequest) -> bytes:
        """The best hits, from the dict or from the index."""
        key = asked.query, asked.hits
        hits, answered_by = self._answers.get(key), AnsweredBy.SAME_WORDS
        if hits is None:
            hits, answered_by = self._found(asked), AnsweredBy.INDEX
            self._answers[key] = hits
        return msgspec.json.encode(Answer(asked.collection, answered_by, msgspec.Raw(hits)))

    def text(self, path: str) -> str:
        """A source file's text."""
        if path not in self._files:
            self._files[path] = (self._tree / path).read_text(encoding="utf-8", errors="replace")
        return self._files[path]

    def start_session(self) -> bytes:
        """A new conversation."""
        return msgspec.json.encode({"id": secrets.token_hex(_SESSION_ID_BYTES)})

    def add_turn(self, session: str, turn: Turn) -> bytes:
        """The end of the conversation, as long as membudget's engine keeps one."""
        self._sessions[session].append(turn)
        return msgspec.json.encode({"id": session, "turns": self._sessions[session][-MOST_TURNS:]})

    def _found(self, asked: SearchRequest) -> bytes:
        vector = self._vectors.get(asked.query)
        if vector is None:
            vector = self._vectors[asked.query] = self._embedder.embed([asked.query])
        found = self._opened.find(vector, asked.hits)
        return msgspec.json.encode([Hit(score, self._chunk(row)) for score, row in found])

    def _chunk(self, row: int) -> Chunk:
        if row not in self._chunks:
            self._chunks[row] = self._opened.chunks.get([row])[0]
        return self._chunks[row]


def application(engine: NaiveEngine) -> Starlette:
    """Its routes; work runs in as many workers as membudget's engine has."""
    workers = ThreadPoolExecutor(max_workers=query_workers())

    async def in_worker(work: Callable[[], bytes | str]) -> Response:
        return Response(await asyncio.get_running_loop().run_in_executor(workers, work), media_type="application/json")

    async def ready(_request: Request) -> Response:
        return Response("ready\n")

    async def search(request: Request) -> Response:
        asked = decode_json(await request.body(), SearchRequest)
        return await in_worker(lambda: engine.answer(asked))

    async def file(request: Request) -> Response:
        path: str = request.path_params["path"]
        return await in_worker(lambda: engine.text(path))

    async def start(_request: Request) -> Response:
        return await in_worker(engine.start_session)

    async def turn(request: Request) -> Response:
        said = decode_json(await request.body(), Turn)
        session: str = request.path_params["session"]
        return await in_worker(lambda: engine.add_turn(session, said))

    return Starlette(
        routes=[
            Route("/readyz", ready),
            Route("/v1/search", search, methods=["POST"]),
            Route("/v1/files/{collection}/{path:path}", file),
            Route("/v1/sessions", start, methods=["POST"]),
            Route("/v1/sessions/{session}/turns", turn, methods=["POST"]),
        ]
    )


def main(port: str, data: str, source: str) -> None:
    """Serve until a signal ends it."""
    name, _, tree = source.partition("=")
    served = application(NaiveEngine(Path(data, name), Path(tree)))
    uvicorn.run(
        served, port=int(port), http="h11", ws="none", loop="asyncio", lifespan="off", access_log=False, log_config=None
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
