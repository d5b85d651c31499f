"""An operation of the local API: a route, and what a document has to say of it.

Covers: the table that serves requests and makes the OpenAPI document (`openapi`), so that neither can say what the
other does not; fields of a query. Does not cover any operation of its own (`local_*`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from membudget_contract.plan import Message
from membudget_sidecar.errors import Refused
from membudget_sidecar.serving.answers import Answer
from membudget_sidecar.serving.routing import Request, Route

_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class QueryField:
    """One field of a query; `schema` is its JSON schema, with the default."""

    name: str
    summary: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path takes and answers."""

    route: Route
    summary: str
    answers: type[Message]
    takes: type[Message] | None = None
    query: tuple[QueryField, ...] = ()
    refusals: tuple[int, ...] = ()
    """Beside those of every operation, of every write and of every one that waits (`openapi`): a problem each."""

    def guarded(self) -> Route:
        """The route, which refuses a query that the document does not know: a misspelt filter would list everything."""
        names = frozenset(field.name for field in self.query)
        inner = self.route.handler

        def handler(request: Request) -> Message | Answer:
            unknown = sorted(set(request.query) - names)
            if unknown:
                known = f"known are {', '.join(sorted(names))}" if names else "it takes none"
                raise Refused(400, "Invalid", f"no field {unknown[0][:40]!r} in the query here; {known}")
            return inner(request)

        return replace(self.route, handler=handler)


def whole_number_field(name: str, summary: str, *, least: int, most: int, default: int) -> QueryField:
    """A whole number in the query."""
    return QueryField(name, summary, {"type": "integer", "minimum": least, "maximum": most, "default": default})


def choice_field(name: str, summary: str, choices: type[enum.StrEnum]) -> QueryField:
    """One of a few words in the query."""
    return QueryField(name, summary, {"type": "string", "enum": [choice.value for choice in choices]})


def whole_number(request: Request, field: QueryField) -> int:
    """What the query says, or the default.

    Raises:
        Refused: no whole number within the bounds.
    """
    text = request.query.get(field.name)
    if text is None:
        return field.schema["default"]
    least, most = field.schema["minimum"], field.schema["maximum"]
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and least <= int(text) <= most):
        raise Refused(400, "Invalid", f"{field.name} is a whole number from {least} to {most}")
    return int(text)


Choice = TypeVar("Choice", bound=enum.StrEnum)


def choice(request: Request, field: QueryField, choices: Callable[[str], Choice]) -> Choice | None:
    """What the query says; None when it does not say.

    Raises:
        Refused: none of the words.
    """
    text = request.query.get(field.name)
    if text is None:
        return None
    try:
        return choices(text)
    except ValueError:
        raise Refused(400, "Invalid", f"{field.name} is one of {', '.join(field.schema['enum'])}") from None
