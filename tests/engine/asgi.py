"""One request to the engine's application, without a socket and on the caller's loop."""

from starlette.types import Message, Scope

from membudget_engine.search_api import SearchApi


async def ask_application(api: SearchApi, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body."""
    sent: list[Message] = []
    parts: list[Message] = [{"type": "http.request", "body": body}]

    async def receive() -> Message:
        return parts.pop(0)

    async def send(part: Message) -> None:
        sent.append(part)

    scope: Scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    await api.application(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]
