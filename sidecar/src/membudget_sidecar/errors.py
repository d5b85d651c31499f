"""Errors of the sidecar.

SidecarError
+-- EngineUnreachable   nobody answers on the control socket, or not in time
+-- EngineRefused       the runtime answered with a problem
+-- QueueFull           too many actions wait already; retriable
+-- Refused             a request that is answered with a problem
ContractError
+-- BudgetOverLimit     an order asks for more than the container's limit
"""

from __future__ import annotations

from membudget_contract.errors import ContractError


class SidecarError(Exception):
    """Base of all errors of the sidecar."""


class EngineUnreachable(SidecarError):
    """The control socket is missing, nobody listens, or the answer took too long or was cut."""


class EngineRefused(SidecarError):
    """The runtime understood the request and refused it; status, reason and detail are its own."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.status, self.reason, self.detail = status, reason, detail


class QueueFull(SidecarError):
    """The queue of actions is full; try again when some are done."""


class Refused(SidecarError):
    """A request that changes nothing; `status` and `reason` are the answer's."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail = status, reason, detail


class BudgetOverLimit(ContractError):
    """A total above the container's live limit: the kernel would kill before the ladder acts."""

    reason = "BudgetOverLimit"

    def __init__(self, total_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"a total of {total_bytes} bytes is more than the container's limit of {limit_bytes} bytes; "
            f"ask for at most {limit_bytes} bytes, or for a percent of the limit"
        )
        self.total_bytes = total_bytes
        self.limit_bytes = limit_bytes
