"""Messages decoded to their types, from any thread.

Covers: JSON and MessagePack to a type, and types worked out one at a time. msgspec (0.22) works a type out when it
first meets it, and two threads that do so at once with the same type, or with two that share a part, end the process
with SIGSEGV; `tests/contract/test_decoding.py` shows it. So nobody else gives msgspec a type to decode to. Does not
cover which errors a caller makes of `msgspec.DecodeError`. Neighbour: every module that reads a message.
"""

from __future__ import annotations

import threading
from typing import Any, Final, TypeVar, cast, overload

import msgspec

Read = TypeVar("Read")

_lock: Final = threading.Lock()
_json: Final[dict[object, msgspec.json.Decoder[Any]]] = {}
_msgpack: Final[dict[object, msgspec.msgpack.Decoder[Any]]] = {}


def json_decoder(kind: type[Read]) -> msgspec.json.Decoder[Read]:
    """The one of this type. Called at import for what `msgspec.convert` makes, too, which works types out as well."""
    found = _json.get(kind)
    if found is None:
        with _lock:
            found = _json.setdefault(kind, msgspec.json.Decoder(kind))
    return cast("msgspec.json.Decoder[Read]", found)


@overload
def decode_json(content: bytes | str, kind: type[Read]) -> Read: ...
@overload
def decode_json(
    content: bytes | str, kind: object
) -> Any: ...  # a union or Annotated, which are no `type` to a checker
def decode_json(content: bytes | str, kind: Any) -> Any:
    """The message.

    Raises:
        msgspec.DecodeError: the content is no JSON, or (`msgspec.ValidationError`) not of this type.
        RecursionError: it is nested too deeply.
    """
    decoder: msgspec.json.Decoder[Any] = json_decoder(kind)
    return decoder.decode(content)


def decode_msgpack(content: bytes, kind: type[Read]) -> Read:
    """The message.

    Raises:
        msgspec.DecodeError: the content is no MessagePack, or (`msgspec.ValidationError`) not of this type.
    """
    found = _msgpack.get(kind)
    if found is None:
        with _lock:
            found = _msgpack.setdefault(kind, msgspec.msgpack.Decoder(kind))
    return cast("Read", found.decode(content))
