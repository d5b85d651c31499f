"""Errors of the controller.

ControllerError
+-- ApiFailed        the API server refused a request, or could not be asked
|   +-- ApiNotFound  there is no such object, or its kind is not served
|   +-- ApiConflict  another writer was first: read again; or, on create, it is there already
+-- KeysUnusable     the Secret holds something that is no key pair or no epoch
+-- SteppedDown      a newer controller has taken over; this one ends
"""

from __future__ import annotations

from http import HTTPStatus


class ControllerError(Exception):
    """Base of all errors of the controller."""


class ApiFailed(ControllerError):
    """A request to the API server that did not succeed; `status` is None where no answer came.

    The message never holds a body: a refused Secret must not end up in a log.
    """

    def __init__(self, request: str, status: int | None, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{request}: {reason if status is None else f'{status} {reason}'}")
        self.status = status
        self.retry_after = retry_after
        """Seconds for which the API server asked to be left alone; 0 where it did not."""

    @property
    def is_passing(self) -> bool:
        """The same request may succeed in a moment, with nobody doing anything about it."""
        return (
            self.status is None
            or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            or self.status == HTTPStatus.TOO_MANY_REQUESTS
        )


class ApiNotFound(ApiFailed):
    """404."""


class ApiConflict(ApiFailed):
    """409."""


class KeysUnusable(ControllerError):
    """What the Secret holds cannot be used; a person has to look."""


class SteppedDown(ControllerError):
    """The Secret's epoch is higher than this process's: orders from here would be refused everywhere."""

    exit_code = 3

    def __init__(self, own_epoch: int, stored_epoch: int) -> None:
        super().__init__(
            f"another controller runs at epoch {stored_epoch}, this one at {own_epoch}: stepping down; "
            "if no other is meant to run, the restart takes the next epoch by itself"
        )


def api_failure(request: str, status: int, reason: str, retry_after: float = 0.0) -> ApiFailed:
    """The error for an answer that is no success."""
    match status:
        case HTTPStatus.NOT_FOUND:
            return ApiNotFound(request, status, reason)
        case HTTPStatus.CONFLICT:
            return ApiConflict(request, status, reason)
        case _:
            return ApiFailed(request, status, reason, retry_after)
