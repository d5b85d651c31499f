"""What changed something at the API server, counted there: its audit log read back as one record for each request.

Counted are create, update, patch, delete and deletecollection of every user but the API server itself, whose leases
and bootstrap objects are nobody's writes. Reviews of access and tokens store nothing and are left out; so are dry runs.
Whether an accepted patch found anything different is not in the log: a write is a request that could have changed
something and was not refused.
"""

import datetime as dt
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import msgspec

_COMPLETION_SECONDS = 10.0
_POLL_SECONDS = 0.01
_WRITING_VERBS = ["create", "update", "patch", "delete", "deletecollection"]
_REVIEWS = [{"group": "authentication.k8s.io"}, {"group": "authorization.k8s.io"}]
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "None", "resources": _REVIEWS},
        {"level": "Metadata", "verbs": _WRITING_VERBS},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Write:
    """One request that could change something."""

    user: str
    verb: str
    resource: str
    """Plural, with the subresource: `pods/status`."""
    namespace: str
    name: str
    user_agent: str
    status: int | None
    """None when the API server was killed before it answered: what changed is unknown."""


class _User(msgspec.Struct):
    username: str


class _Reference(msgspec.Struct, rename="camel"):
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class _Response(msgspec.Struct):
    code: int = 0


class _Event(msgspec.Struct, rename="camel"):
    """One line of the log, as far as it matters here."""

    audit_id: str = msgspec.field(name="auditID")
    stage: str
    verb: str
    user: _User
    request_uri: str = msgspec.field(name="requestURI")
    request_received_timestamp: dt.datetime
    user_agent: str = ""
    object_ref: _Reference = msgspec.field(default_factory=_Reference)
    response_status: _Response = msgspec.field(default_factory=_Response)


_decoder = msgspec.json.Decoder(_Event)


class _Request:
    """What the log says about one request: its receipt, and its end unless that is still to come."""

    def __init__(self, received: _Event) -> None:
        self.received = received
        self.ended: _Event | None = None

    def is_counted(self, *, events: bool, refused: bool) -> bool:
        """As `AuditLog.writes` says."""
        if "dryRun=" in self.received.request_uri:
            return False
        if self.ended is not None and self.ended.response_status.code >= HTTPStatus.BAD_REQUEST and not refused:
            return False
        return events or self.received.object_ref.resource != "events"

    def as_write(self) -> Write:
        """The end knows more than the receipt: the name of what was created stands in the body."""
        known = self.ended or self.received
        target = known.object_ref
        return Write(
            user=known.user.username,
            verb=known.verb,
            resource=f"{target.resource}/{target.subresource}" if target.subresource else target.resource,
            namespace=target.namespace,
            name=target.name,
            user_agent=known.user_agent,
            status=self.ended.response_status.code if self.ended else None,
        )


class AuditLog:
    """The logs of all starts of one API server, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self._read: dict[Path, _Read] = {}

    def flags_for_next_start(self) -> list[str]:
        """For the API server; a line that a killed one wrote half stays the last of a file of its own."""
        self._folder.mkdir(exist_ok=True)
        policy = self._folder / "policy.json"
        policy.write_text(json.dumps(_POLICY))
        self._files.append(self._folder / f"{len(self._files)}.jsonl")
        return [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self._files[-1]}",
            "--audit-log-maxsize=0",  # never rotated
            "--audit-log-mode=blocking",  # a request stands in the log before it is handled
        ]

    def mark(self) -> int:
        """How many write requests have been received so far: `writes` leaves out as many."""
        return len(self._requests())

    def write_times(self, since: int) -> list[tuple[float, str]]:
        """Of all writes after the mark: when the API server received them, in seconds since the epoch, and whose."""
        received = [request.received for request in self._requests()[since:]]
        return [(event.request_received_timestamp.timestamp(), event.user.username) for event in received]

    def writes(self, since: int, *, events: bool, refused: bool) -> list[Write]:
        """In the order received, Events and refused requests only when asked for.

        An answer may reach the client before its line reaches the log, so this waits for what is still being handled.
        What has not ended then, because the server was killed or stopped, is counted with status None.
        """
        deadline = time.monotonic() + _COMPLETION_SECONDS
        while any(request.ended is None for request in self._requests_of(self._files[-1])):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        requests = self._requests()[since:]
        return [request.as_write() for request in requests if request.is_counted(events=events, refused=refused)]

    def _requests(self) -> list[_Request]:
        return [request for path in self._files for request in self._requests_of(path)]

    def _requests_of(self, path: Path) -> list[_Request]:
        known = self._read.setdefault(path, _Read())
        if path.exists():
            if path.stat().st_size < known.offset:  # a test cut it, as a death in the middle of a line does
                known = self._read[path] = _Read()
            with path.open("rb") as file:
                file.seek(known.offset)
                known.take(file.read())
        return list(known.requests.values())


class _Read:
    """Of one file what was read so far: the log of a whole run is long, and asked for many times."""

    def __init__(self) -> None:
        self.offset = 0
        self.requests: dict[str, _Request] = {}

    def take(self, content: bytes) -> None:
        """What follows, as far as its lines are whole."""
        whole = content[: content.rfind(b"\n") + 1]  # the rest is being written, or never to be finished
        self.offset += len(whole)
        for line in whole.splitlines():
            event = _decoder.decode(line)
            if event.stage == "RequestReceived":
                self.requests[event.audit_id] = _Request(event)
            else:
                self.requests[event.audit_id].ended = event
