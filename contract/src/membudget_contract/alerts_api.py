"""Messages on the sidecar's local API: what a person should hear of before anything is wrong.

Covers: alerts, leak suspects, the forecast. Does not cover rules (`policy_alerts`) nor what is done about memory
(`sidecar_api`). Times are unix seconds.
"""

from __future__ import annotations

from membudget_contract import CONTRACT_VERSION
from membudget_contract.plan import Message
from membudget_contract.policy_alerts import AlertName


class Alert(Message, frozen=True, kw_only=True):
    """One alert from its begin to its end; `detail` is a sentence with the figures."""

    name: AlertName
    since: float
    detail: str
    ended: float | None = None
    """None while it holds."""


class AlertList(Message, frozen=True, kw_only=True):
    """What is raised now, the last ones that ended, oldest first, and how many there were."""

    contract: str = CONTRACT_VERSION
    active: tuple[Alert, ...]
    recent: tuple[Alert, ...]
    count: int
    """Raised since `monitoring_since`."""
    monitoring_since: float


class LeakSuspect(Message, frozen=True, kw_only=True):
    """Steady growth of one subject: a component beyond its budget, or what nobody manages."""

    subject: str
    grown_bytes: int
    since: float
    bytes_per_hour: int
    likely: bool
    """Faster than the policy's figure per hour."""
    confidence: float
    """0 to 1, a share and no probability."""
    reason: str


class LeakList(Message, frozen=True, kw_only=True):
    """Who seems to leak now."""

    contract: str = CONTRACT_VERSION
    suspects: tuple[LeakSuspect, ...]


class Forecast(Message, frozen=True, kw_only=True):
    """When the signal meets `limit_bytes` if it grows on as it did; `absent` says why nothing can be said."""

    seconds: float | None = None
    bytes_per_second: float | None = None
    confidence: float | None = None
    """0 to 1, a share and no probability."""
    limit_bytes: int | None = None
    absent: str | None = None
